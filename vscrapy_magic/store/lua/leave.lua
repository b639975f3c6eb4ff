-- A member leaves: by itself, or found dead by its supervisor, which may name leases to blame.
--
-- KEYS: prefix of the crawl. ARGV: token, how (left, dead, or unclear: dead by one of several leases),
--   packet with the failure that its death is ('' for none), then the leases in question.
-- Returns: {'ok', state, close_reason, buried origins}, or {'unknown'}.
--
-- Of a death that is not unclear each lease named gets a strike. Otherwise all become suspects, which
-- run with nothing beside them (grant.lua); a strike gets only who was alone, or the only one that was
-- a suspect before. `start()` is no suspect: requests that nobody leases beside it might be what it
-- waits for. When all that it had brought is done, it is alone. With MAX_STRIKES a lease is buried: it
-- counts as done, and `out` says so. Leaving twice is as leaving once.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
local MAX_STRIKES = 3

if not meta_load() then return {'unknown'} end
--!include frees_room
if FINAL[M.state] then return {'ok', M.state, M.close_reason, {}} end -- swept with the crawl
local token, how, now = ARGV[1], ARGV[2], now_ms()
local HELD = P .. 'l:' .. token
local buried = {}

local function is_request(origin) return origin ~= 'start' and origin ~= 'idle' end

local function bury(lease, origin)
  M.commit_no = M.commit_no + 1
  M.failures = M.failures + 1
  local out = {'nonce', token .. ' buried ' .. lease, 'total', M.out_bytes, 'item_count', 0,
    'items', '', 'failure_count', 1, 'failures', '', 'buried', origin}
  if is_request(origin) then
    local id, index = origin_split(origin)
    for _, v in ipairs({'index', index, 'blob', redis.call('HGET', P .. 'b', id)}) do
      out[#out + 1] = v
    end
    request_done(origin)
  elseif origin == 'start' then
    M.start = 'done'
  else
    M.idle = 'done'
  end
  redis.call('XADD', P .. 'out', M.commit_no .. '-0', unpack(out))
  M.leased = M.leased - 1
  redis.call('HDEL', HELD, lease)
  redis.call('HDEL', P .. 'a', origin)
  redis.call('DEL', P .. 'p:' .. origin)
  buried[#buried + 1] = origin
end

local function strike(lease, origin)
  local f = runs_get(origin)
  f[2] = f[2] + 1
  runs_set(origin, f)
  if f[2] >= MAX_STRIKES then bury(lease, origin) end
end

local function suspect(leases, origins)
  local before, suspects = {}, 0
  for i, origin in ipairs(origins) do
    local f = runs_get(origin)
    if f[3] == 1 then before[#before + 1] = i end
    if is_request(origin) then
      f[3] = 1
      runs_set(origin, f)
      suspects = suspects + 1
    end
  end
  local blamed = #leases == 1 and 1 or (#before == 1 and suspects == #leases and before[1])
  if blamed then strike(leases[blamed], origins[blamed]) end
end

-- It may have died before it joined.
local claimed = redis.call('ZREM', P .. 'claims', token) == 1
if ARGV[3] ~= '' and (claimed or redis.call('ZSCORE', P .. 'members', token)) then
  M.commit_no = M.commit_no + 1
  M.failures, M.out_bytes = M.failures + 1, M.out_bytes + #ARGV[3]
  redis.call('XADD', P .. 'out', M.commit_no .. '-0', 'nonce', token .. ' died', 'total', M.out_bytes,
    'item_count', 0, 'items', '', 'failure_count', 1, 'failures', ARGV[3])
end
local leases, origins = {}, {}
for i = 4, #ARGV do
  local held = redis.call('HGET', HELD, ARGV[i])
  if held then
    leases[#leases + 1], origins[#origins + 1] = ARGV[i], string.match(held, '^([^:]+)')
  end
end
if how == 'unclear' then
  suspect(leases, origins)
else
  for i, lease in ipairs(leases) do strike(lease, origins[i]) end
end
if redis.call('ZSCORE', P .. 'members', token) then member_remove(token, now, how ~= 'left') end
settle(now)
blobs_flush()
slots_flush()
meta_flush()
return {'ok', M.state, M.close_reason, buried}
