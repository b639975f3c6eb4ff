-- A supervisor asks whether it may start a child for this crawl; atomic, so that a crawl of ten
-- pages does not make two hundred workers start one each.
--
-- KEYS: prefix of the crawl. ARGV: token, ttl_ms of the claim, ready requests a child,
--   worker (stands by when there is no need: a step wakes it).
-- Returns: 1 (claimed until the child joins or the claim expires), 0 (no need), -1 (unknown, or over).
local P = KEYS[1]
--!include clock
--!include meta
if not meta_load() or FINAL[M.state] or M.state == 'stopping' or M.state == 'closing' then return -1 end
--!include needs_room
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', P .. 'claims', '-inf', now)
local members = redis.call('ZCARD', P .. 'members')
local allowed = math.max(1, math.min(2 * members, math.ceil(M.queued / tonumber(ARGV[3]))))
-- Who stands in the debugger begins with nothing that is queued.
if M.queued > 0 or M.start == 'todo' then allowed = allowed + math.min(M.halts, members) end
if M.workers > 0 then allowed = math.min(allowed, M.workers) end
if members + redis.call('ZCARD', P .. 'claims') >= allowed then
  redis.call('LREM', P .. 'standby', 0, ARGV[4])
  redis.call('RPUSH', P .. 'standby', ARGV[4])
  return 0
end
redis.call('ZADD', P .. 'claims', now + tonumber(ARGV[2]), ARGV[1])
return 1
