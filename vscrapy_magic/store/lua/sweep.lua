-- Removes what a crawl that is over needs no longer, a bounded piece at a time.
--
-- KEYS: prefix of the crawl, index of live crawls, when crawls are past their retention.
-- ARGV: crawl_id, retention_ms.
-- Returns: 1 when nothing is left to remove, 0 to be called again, -1 when the crawl is not over.
local P = KEYS[1]
--!include clock
--!include meta
local AT_ONCE = 500 -- keys removed by one call
local OPENS = {finished = 1, stopped = 1, cancelled = 1} -- as in retry.lua
local SEEN_LEVEL_KEPT = 1 -- up to 920,000 URLs; 11 MB
local MEMBERS_AT_ONCE = 5 -- each may hold some hundred leases

if not meta_load() then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 1
end
if not FINAL[M.state] then return -1 end
--!include frees_room
-- Content keys stay behind only for leases that were running or were lost.
for _, token in ipairs(redis.call('ZRANGE', P .. 'members', 0, MEMBERS_AT_ONCE - 1)) do
  for _, held in ipairs(redis.call('HVALS', P .. 'l:' .. token)) do
    redis.call('UNLINK', P .. 'p:' .. string.match(held, '^([^:]+)'))
  end
  redis.call('DEL', P .. 'm:' .. token, P .. 'l:' .. token, P .. 'h:' .. token, P .. 'r:' .. token,
    P .. 'wake:' .. token)
  redis.call('ZREM', P .. 'members', token)
end
for _, number in ipairs(redis.call('HKEYS', P .. 'halts')) do
  redis.call('DEL', P .. 'halt:' .. number, P .. 'halt-in:' .. number)
end
-- Cursors are kept: from the beginning, a scan of a large hash would find only what was removed.
local scan = redis.call('HSCAN', P .. 'a', redis.call('HGET', P .. 'meta', 'swept_again') or 0,
  'COUNT', AT_ONCE)
local again = scan[2]
redis.call('HSET', P .. 'meta', 'swept_again', scan[1])
for i = 1, #again, 2 do
  redis.call('UNLINK', P .. 'p:' .. again[i])
  redis.call('HDEL', P .. 'a', again[i])
end
local left = AT_ONCE
scan = redis.call('HSCAN', P .. 'slots', redis.call('HGET', P .. 'meta', 'swept_slots') or 0,
  'COUNT', AT_ONCE)
local slots = scan[2]
redis.call('HSET', P .. 'meta', 'swept_slots', scan[1])
for i = 1, #slots, 2 do
  redis.call('UNLINK', P .. 'q:' .. slots[i])
  redis.call('HDEL', P .. 'slots', slots[i])
end
left = left - #slots / 2
-- Shards by number: `swept` is the next one of level `swept_level`.
local at = redis.call('HMGET', P .. 'meta', 'swept_level', 'swept')
local level, shard = tonumber(at[1] or 0) or 0, tonumber(at[2] or 0) or 0
-- With failures the crawl may be opened again (retry.lua): what it has seen is kept for so long, as
-- long as that is little; its cookies and changed settings, too.
local kept = OPENS[M.state] and M.failures > 0 and M.level <= SEEN_LEVEL_KEPT
while left > 0 and level <= M.level do
  local key = P .. 's' .. level .. ':' .. shard
  if kept then redis.call('PEXPIRE', key, ARGV[2]) else redis.call('UNLINK', key) end
  shard, left = shard + 1, left - 1
  if shard >= 256 * 8 ^ level then level, shard = level + 1, 0 end
end
redis.call('HSET', P .. 'meta', 'swept_level', level, 'swept', shard)
if level <= M.level or redis.call('HLEN', P .. 'slots') > 0 or redis.call('HLEN', P .. 'a') > 0
    or redis.call('EXISTS', P .. 'members') == 1 then
  return 0
end
redis.call('UNLINK', P .. 'b', P .. 'bm', P .. 'ready', P .. 'a', P .. 'suspects',
  P .. 'parked', P .. 'holding', P .. 'spare', P .. 'claims', P .. 'standby', P .. 'members', P .. 'slots',
  P .. 'offer', P .. 'unfit', P .. 'halts')
for _, name in ipairs({'cookies', 'cookie_no', 'control'}) do
  if kept then redis.call('PEXPIRE', P .. name, ARGV[2]) else redis.call('UNLINK', P .. name) end
end
redis.call('HSET', P .. 'meta', 'seen_kept', kept and 1 or 0)
-- Another sweep may say another retention.
if kept then redis.call('HDEL', P .. 'meta', 'swept_level', 'swept') end
redis.call('ZADD', KEYS[3], now_ms() + tonumber(ARGV[2]), ARGV[1])
for _, name in ipairs({'meta', 'out', 'stats', 'log', 'files', 'codes', 'retried'}) do
  redis.call('PEXPIRE', P .. name, ARGV[2])
end
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
