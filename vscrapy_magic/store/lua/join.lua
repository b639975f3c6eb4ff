-- A child becomes a member of its crawl.
--
-- KEYS: prefix of the crawl. ARGV: token, worker, ttl_ms, number of the code that the child runs.
-- Returns: {'ok', state, control}, or {'unknown'}, {'over', state, close_reason}, {'full'}, {'old'}: newer
--   code is in force.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
--!include code
if not meta_load() then return {'unknown'} end
if FINAL[M.state] then return {'over', M.state, M.close_reason} end
if tonumber(ARGV[4]) ~= M.code_no then return {'old'} end
-- One that makes way for newer code still holds what it has begun.
if M.workers > 0 and #members_staying() >= M.workers then return {'full'} end
local now, before = now_ms(), redis.call('ZCARD', P .. 'members')
redis.call('ZREM', P .. 'claims', ARGV[1])
redis.call('ZADD', P .. 'members', now + tonumber(ARGV[3]), ARGV[1])
redis.call('HSET', P .. 'm:' .. ARGV[1], 'seq', 0, 'worker', ARGV[2], 'parked', 0, 'joined_ms', now,
  'rule_no', M.rule_no)
if before > 0 and shares_shrink(before, before + 1) then wake_all() end
if M.state == 'queued' then
  M.why = ''
  set_state('starting', now)
end
meta_flush()
return {'ok', M.state, M.control}
