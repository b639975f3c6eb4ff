-- The workers of a process, or a session, say that they live; those whose deadline has passed are judged.
--
-- KEYS: records and deadlines (of this kind), records and deadlines of sessions, gone sessions, when
--   sessions were last heard of, `judged`, index of live crawls, index of crawls, when crawls are
--   past their retention.
-- ARGV: ttl_ms, grace_ms, beat_ms, forget_ms, verdict_ms, session (1 when a session beats), ready
--   requests a child, ttl_ms of members and of claims, then name and record of each.
-- Returns: {alive (0: this session was judged gone before), its silence then in ms, gone sessions
--   (id, silence in ms, ...; 0: its process has ended), live crawls, of each what workers must know of
--   it (nothing for a session): state or '' when it is past its retention, close_reason, why, members,
--   children that it wants more, ms since somebody judged them, whether one of them is nearly overdue,
--   number of the code in force, of what is offered (0 for none), owner}.
--
-- So a worker that has nothing to do learns with its beat, in one command, that this is still so.
-- If nobody judged for more than two beats, the server or the whole machine stood still: every
-- session gets its grace from now. A session that was judged gone never comes back.
-- A full server takes beats all the same: one that has begun with a removal is not refused.
--!include clock
redis.call('ZREM', KEYS[5], '')
local now, ttl = now_ms(), tonumber(ARGV[1])
local judged = tonumber(redis.call('GET', KEYS[7]) or 0) or 0
if now - judged > 2 * tonumber(ARGV[3]) then
  local until_ms = now + tonumber(ARGV[2])
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', until_ms)) do
    redis.call('ZADD', KEYS[4], 'XX', until_ms, name)
  end
end
redis.call('SET', KEYS[7], now)

local function silence(name, verdict)
  local heard = tonumber(redis.call('HGET', KEYS[6], name) or verdict)
  return math.max(0, verdict - heard)
end

local alive, silent = 1, 0
for i = 10, #ARGV, 2 do
  local verdict = ARGV[6] == '1' and redis.call('ZSCORE', KEYS[5], ARGV[i])
  if verdict then
    alive, silent = 0, silence(ARGV[i], tonumber(verdict))
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('ZADD', KEYS[2], now + ttl, ARGV[i])
    if ARGV[6] == '1' then redis.call('HSET', KEYS[6], ARGV[i], now) end
  end
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[4], name)
  redis.call('HDEL', KEYS[3], name)
  redis.call('ZADD', KEYS[5], now, name)
end
local forget = now - tonumber(ARGV[4])
if ARGV[6] == '0' then
  -- Workers that are gone stay listed for a while.
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', forget, 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[2], name)
    redis.call('HDEL', KEYS[1], name)
  end
end
-- What they had brought has just expired.
for _, crawl in ipairs(redis.call('ZRANGEBYSCORE', KEYS[10], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[9], crawl)
  redis.call('ZREM', KEYS[10], crawl)
end
local old = now - tonumber(ARGV[5])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', old, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[5], name)
  redis.call('HDEL', KEYS[6], name)
end
local gone = redis.call('ZREVRANGEBYSCORE', KEYS[5], '+inf', forget, 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #gone, 2 do gone[i + 1] = silence(gone[i], tonumber(gone[i + 1])) end
--!include allowed
local live, crawls = redis.call('ZRANGE', KEYS[8], 0, 999), {}
for i, id in ipairs(ARGV[6] == '0' and live or {}) do
  local P = 'vscrapy:{' .. id .. '}:'
  local m = redis.call('HMGET', P .. 'meta', 'state', 'close_reason', 'why', 'queued', 'workers', 'judged_ms',
    'code_no', 'offer_no', 'session', 'halts', 'start')
  local members = redis.call('ZCARD', P .. 'members')
  local wanted = children_allowed(members, tonumber(m[4]) or 0, tonumber(m[5]) or 0, tonumber(ARGV[7]),
    tonumber(m[10]) or 0, m[11])
  wanted = math.max(0, wanted - members - children_coming(P .. 'claims', members, now, tonumber(ARGV[9])))
  local due = redis.call('ZRANGE', P .. 'members', 0, 0, 'WITHSCORES')[2]
  local at_risk = due and tonumber(due) - now <= tonumber(ARGV[8]) / 2
  crawls[i] = {m[1] or '', m[2] or '', m[3] or '', members, wanted, now - (tonumber(m[6]) or 0),
    at_risk and 1 or 0, tonumber(m[7]) or 1, tonumber(m[8]) or 0, m[9] or ''}
end
return {alive, silent, gone, live, crawls}
