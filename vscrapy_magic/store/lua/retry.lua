-- A user puts failed requests back, each once; a crawl that is over goes on with them.
--
-- KEYS: prefix of the crawl, index of live crawls, when crawls are past their retention.
-- ARGV: crawl_id, owner of a crawl that is opened again (a session), ready requests a child, number of
--   requests, then of each: number of its failure, slot, score, content keys of what its failed run had
--   delivered, and its blob.
-- Returns: {'ok', state before, whether URLs that were seen are known, numbers put back}, or {'unknown'},
--   {'over', state}: not in this state, {'unswept'}: not before all of the sweep is done.
--
-- They are not filtered. A run drops outputs whose key is there, as after a lost lease (step.lua).
-- A limit (CLOSESPIDER_*) that has ended the crawl holds no longer.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
local OPENS = {finished = 1, stopped = 1, cancelled = 1}
local RETRIED = P .. 'retried'
if not meta_load() then return {'unknown'} end
local before, now = M.state, now_ms()
if before == 'stopping' or before == 'closing' or (FINAL[before] and not OPENS[before]) then
  return {'over', before}
end
if FINAL[before] and redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {'unswept'} end
--!include needs_room

local new = {}
for at = 5, #ARGV, 5 do
  if redis.call('SADD', RETRIED, ARGV[at]) == 1 then new[#new + 1] = at end
end

local function keep_for_good(names)
  for _, name in ipairs(names) do redis.call('PERSIST', P .. name) end
end

local function open_again()
  local meta = P .. 'meta'
  local seen = redis.call('HGET', meta, 'seen_kept') == '1'
  keep_for_good({'meta', 'out', 'stats', 'log', 'files', 'codes', 'retried', 'cookies', 'cookie_no', 'control'})
  if seen then
    for level = 0, M.level do
      for shard = 0, 256 * 8 ^ level - 1 do redis.call('PERSIST', P .. 's' .. level .. ':' .. shard) end
    end
  else
    M.level, M.level_count = 0, 0
  end
  redis.call('HDEL', meta, 'swept_level', 'swept', 'swept_again', 'swept_slots', 'seen_kept', 'ended_ms')
  set_state('queued', now)
  M.queued, M.leased, M.start, M.idle, M.idle_after_ms, M.again, M.called = 0, 0, 'done', '', 0, 0, 0
  M.close_reason, M.final, M.why, M.limited, M.session = '', '', '', '', ARGV[2]
  M.rules, M.rule_no, M.slot_limit, M.slot_excl, M.slot_words, M.own_limit = 0, 0, 0, 0, '', 0
  M.offer_no, M.judged_ms, M.limit_timeout_ms = 0, now, 0
  if M.items >= M.limit_items then M.limit_items = 0 end
  if M.pages >= M.limit_pages then M.limit_pages = 0 end
  if M.errors >= M.limit_errors then M.limit_errors = 0 end
  redis.call('ZADD', KEYS[2], now * 1000, ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  return seen
end

local seen, numbers = true, {}
if #new > 0 and FINAL[before] then seen = open_again() end
for _, at in ipairs(new) do
  local number, slot, score, keys, data = unpack(ARGV, at, at + 4)
  M.blob_no = M.blob_no + 1
  slot_get(slot)
  slot_dirty[slot] = true
  local origin = blob_add(M.blob_no, M.lifo == 0, slot, score, {QUEUED}, data) .. '.1'
  slots_added[slot] = (slots_added[slot] or 0) + 1
  runs_set(origin, {2, 0, 0})
  if keys ~= '' then redis.call('RPUSH', P .. 'p:' .. origin, keys) end
  numbers[#numbers + 1] = tonumber(number)
end
if #new > 0 then
  M.queued = M.queued + #new
  if M.idle == 'done' then M.idle = '' end
  redis.call('HINCRBY', P .. 'stats', 'retry/vretry', #new)
  wake_for_added(0)
  wake_standby(tonumber(ARGV[3]), now)
end
blobs_flush()
slots_flush()
meta_flush()
return {'ok', before, seen and 1 or 0, numbers}
