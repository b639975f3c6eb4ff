-- A worker or a session says that it lives; those whose deadline has passed are judged.
--
-- KEYS: records, deadlines (of this kind), deadlines of sessions, gone sessions, `judged`,
--   index of live crawls.
-- ARGV: name, record, ttl_ms, beat_ms, forget_ms, session (1 when a session beats).
-- Returns: {alive (0: this session was judged gone before), gone sessions, live crawls}.
--
-- If nobody judged for more than two beats, the server or the whole machine stood still: every
-- session gets one full ttl from now. A session that was judged gone never comes back.
--!include clock
local now, ttl = now_ms(), tonumber(ARGV[3])
local judged = tonumber(redis.call('GET', KEYS[5]) or 0) or 0
if now - judged > 2 * tonumber(ARGV[4]) then
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now + ttl)) do
    redis.call('ZADD', KEYS[3], 'XX', now + ttl, name)
  end
end
redis.call('SET', KEYS[5], now)
local alive = 1
if ARGV[6] == '1' and redis.call('ZSCORE', KEYS[4], ARGV[1]) then
  alive = 0
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('ZADD', KEYS[2], now + ttl, ARGV[1])
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[3], name)
  redis.call('ZADD', KEYS[4], now, name)
end
local forget = now - tonumber(ARGV[5])
-- Those who are gone stay listed for a while. A session's record and its verdict go together.
local deadlines = ARGV[6] == '1' and KEYS[4] or KEYS[2]
for _, name in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', forget, 'LIMIT', 0, 100)) do
  redis.call('ZREM', deadlines, name)
  redis.call('HDEL', KEYS[1], name)
end
return {alive, redis.call('ZRANGE', KEYS[4], 0, 999), redis.call('ZRANGE', KEYS[6], 0, 999)}
