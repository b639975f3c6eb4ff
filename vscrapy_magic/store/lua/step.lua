-- One exchange of a child with the frontier: commits what is done, leases what is wanted.
--
-- KEYS: prefix of the crawl.
-- ARGV: token, seq, want, unstarted, last_lease, cookies_seen, flags (k keep_open, s want_stats),
--   close_reason, pages, errors, item_count, items, failure_count, failures, filtered_stat,
--   code_version, ready_per_child, control (settings that the child works by), record_count, records,
--   records_left (pages that the child did not record), rule of all slots
--   without one of their own (concurrency or '' when nothing is said of it, exclusive, words),
--   then lists, each led by its number of entries: ended (lease), parts (lease, keys),
--   released (lease), limits (slot, concurrency, exclusive, words), blobs (slot, score, start, count,
--   fingerprint or '' each, data), stats (kind, key, value), cookies (key, value),
--   slots (slot, in_force, room).
-- Returns: {'ok', numbers and words, dropped (blob, index, ...), shares (slot, share, idle_ms, ...),
--   leases (lease, kind, origin, slot, attempt, has_parts, ...), blobs (id, data, ...),
--   cookies (key, value, ...), stats (key, value, ...)}; or one of {'unknown'} no such crawl,
--   {'over', state, close_reason}, {'gone'} not a member, {'lost', lease, ...}, {'late'} the member
--   has stepped since, {'rolled_back'}: then nothing was written, but for the state in the last case.
--
-- Idempotent by `seq`: the last step of a member may be sent again, and gets its reply again.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include seen
--!include queue
--!include allowed
--!include members
local COOKIES_AT_ONCE = 10000 -- as many as a crawl may have

if not meta_load() then return {'unknown'} end
if FINAL[M.state] then return {'over', M.state, M.close_reason} end

local now = now_ms()
local token, seq, want = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local unstarted, last_lease, cookies_seen = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local keep_open = string.find(ARGV[7], 'k', 1, true) ~= nil
local want_stats = string.find(ARGV[7], 's', 1, true) ~= nil
local MINE, HELD, SHARES = P .. 'm:' .. token, P .. 'l:' .. token, P .. 'h:' .. token

local at = 24
--!include requests
local mine = redis.call('HMGET', MINE, 'seq', 'dropped', 'parked', 'rule_no', 'leave', 'alone',
  'alone_until')
if not mine[1] or not redis.call('ZSCORE', P .. 'members', token) then return {'gone'} end
local again = tonumber(mine[1]) == seq
if tonumber(mine[1]) < seq - 1 then
  -- The server forgot a step that it had acknowledged to this very child.
  roll_back(now)
  return {'rolled_back'}
end
-- Its child has given up this connection and got its answer on another one.
if tonumber(mine[1]) > seq then return {'late'} end

local leases, dropped = {}, {}

--!include commit
--!include grant
local function resend()
  dropped = mine[2] and cmsgpack.unpack(mine[2]) or {}
  local held = redis.call('HGETALL', HELD)
  for i = 1, #held, 2 do
    local id = tonumber(held[i])
    if id > last_lease then tell_lease(id, string.match(held[i + 1], '^([^:]+)')) end
  end
  local shares = redis.call('HGETALL', SHARES)
  for i = 1, #shares, 2 do
    for _, v in ipairs({shares[i], tonumber(shares[i + 1]), -1}) do
      reply_shares[#reply_shares + 1] = v
    end
  end
end

if again then
  resend()
  redis.call('HSET', MINE, 'rule_no', -1) -- shares that became 0 are told once more
else
  local ended, ended_held = read_leases(1)
  local parts, parts_held, part_keys = read_leases(2)
  local released, released_held = read_leases(1)
  if #lost > 0 then
    table.insert(lost, 1, 'lost')
    return lost
  end
  -- A crawl that is to end gives memory back; what its children bring at last may need some.
  if M.state == 'stopping' or M.state == 'closing' then
--!include frees_room
  else
--!include needs_room
  end
  unpark(token, tonumber(mine[3] or 0))
  M.commit_no = M.commit_no + 1
  if tonumber(mine[5] or 0) > 0 then want = 0 end
  if ARGV[22] ~= '' and tonumber(ARGV[18]) >= M.rules then
    M.rules = tonumber(ARGV[18])
    slots_told(tonumber(ARGV[22]), tonumber(ARGV[23]), ARGV[24])
  end
  commit_leases(ended, ended_held, parts, parts_held, part_keys, released, released_held)
  commit_limits()
  local added = commit_requests()
  commit_stats()
  commit_cookies()
  commit_outputs()
  read_slots()
  cut_shares()
  if ARGV[8] ~= '' and M.state ~= 'stopping' and M.state ~= 'closing' then
    close_with(ARGV[8], 'finished', now)
  end
  settle(now)
  lease_what_is_wanted()
  if #held_new > 0 then redis.call('HSET', HELD, unpack(held_new)) end
  if tonumber(unstarted) > 0 then
    redis.call('ZADD', P .. 'spare', unstarted, token)
  else
    redis.call('ZREM', P .. 'spare', token)
  end
  wake_for_added(#released + slots_freed + slots_opened * members, token)
  -- Another member may take the idle lease that this one does not want.
  if M.queued + M.leased == 0 and want == 0 and #ended > 0 and M.state == 'running' then
    wake_parked(1)
  end
  if added > 0 or (#released > 0 and M.halts > 0) then wake_standby(tonumber(ARGV[17]), now) end
  redis.call('HSET', MINE, 'seq', seq, 'dropped', cmsgpack.pack(dropped), 'rule_no', M.rule_no)
  blobs_flush()
  slots_flush()
  meta_flush()
end

local cookies, cookie_no = {}, cookies_seen
if M.cookie_no > cookies_seen then
  local found = redis.call('ZRANGEBYSCORE', P .. 'cookie_no', '(' .. cookies_seen, '+inf',
    'WITHSCORES', 'LIMIT', 0, COOKIES_AT_ONCE)
  for i = 1, #found, 2 do
    cookies[#cookies + 1] = found[i]
    cookies[#cookies + 1] = redis.call('HGET', P .. 'cookies', found[i])
    cookie_no = tonumber(found[i + 1])
  end
end
return {'ok',
  {M.state, M.close_reason, M.commit_no, M.epoch, M.control,
    hungry(),
    M.items, M.pages, M.errors, M.failures, M.queued, M.leased, cookie_no, tonumber(mine[5] or 0),
    M.rec_max > 0 and M.rec_bytes >= M.rec_max and 1 or 0},
  dropped, reply_shares, leases, reply_blobs, cookies,
  want_stats and redis.call('HGETALL', P .. 'stats') or {}}
