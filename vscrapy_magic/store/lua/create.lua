-- A crawl comes to be.
--
-- KEYS: prefix of the crawl, index of crawls, index of live crawls.
-- ARGV: crawl_id, session that collects its outputs (or empty) and its record, then fields and values
--   of meta.
-- Returns: {'ok'}, or {'exists'}.
local P = KEYS[1]
--!include clock
if redis.call('EXISTS', P .. 'meta') == 1 then return {'exists'} end
local now = now_ms()
redis.call('HSET', P .. 'meta', 'state', 'queued', 'state_ms', now, 'created_ms', now, 'judged_ms', now,
  'start', 'todo', 'idle', '', 'epoch', 1, 'control', 1, unpack(ARGV, 4))
if ARGV[2] ~= '' then
  redis.call('HSET', P .. 'meta', 'collector_no', 1, 'collector', ARGV[2], 'collector_record', ARGV[3])
end
-- In microseconds: crawls ordered within one millisecond keep their order.
local t = redis.call('TIME')
local order = tonumber(t[1]) * 1000000 + tonumber(t[2])
-- Lines are added to a stream that is there (logs.py), so that late ones leave nothing behind.
redis.call('XADD', P .. 'log', '0-1', 'lines', '')
redis.call('XTRIM', P .. 'log', 'MAXLEN', 0)
redis.call('ZADD', KEYS[2], order, ARGV[1])
redis.call('ZADD', KEYS[3], order, ARGV[1])
return {'ok'}
