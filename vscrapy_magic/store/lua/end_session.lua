-- A session is gone now, because its process has ended. A verdict that was there before stays.
--
-- KEYS: records, deadlines, gone sessions, when sessions were last heard of. ARGV: session.
-- Returns: 1, or 0 when it was gone before.
--!include clock
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('ZADD', KEYS[3], 'NX', now_ms(), ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[4], ARGV[1])
return 1
