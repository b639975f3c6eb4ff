-- A supervisor asks whether it may start a child for this crawl; atomic, so that a crawl of ten
-- pages does not make two hundred workers start one each.
--
-- KEYS: prefix of the crawl. ARGV: token, ttl_ms of the claim, ready requests a child,
--   worker (stands by when there is no need: a step wakes it).
-- Returns: 1 (claimed until the child joins or the claim expires), 0 (no need), -1 (unknown, or over).
local P = KEYS[1]
--!include clock
--!include meta
--!include allowed
if not meta_load() or FINAL[M.state] or M.state == 'stopping' or M.state == 'closing' then return -1 end
--!include needs_room
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', P .. 'claims', '-inf', now)
redis.call('ZREM', P .. 'claims', '=' .. ARGV[4]) -- it was called for, and is here
local members = redis.call('ZCARD', P .. 'members')
local allowed = children_allowed(members, M.queued, M.workers, tonumber(ARGV[3]))
if members + children_coming(P .. 'claims', members, now, tonumber(ARGV[2])) >= allowed then
  redis.call('LREM', P .. 'standby', 0, ARGV[4])
  redis.call('RPUSH', P .. 'standby', ARGV[4])
  return 0
end
redis.call('ZADD', P .. 'claims', now + tonumber(ARGV[2]), ARGV[1])
return 1
