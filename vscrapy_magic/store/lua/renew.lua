-- A supervisor renews its children of one crawl, and judges all members whose deadline has passed.
--
-- KEYS: prefix of the crawl. ARGV: ttl_ms, beat_ms, number of claims, tokens of children that are being
--   started (claims), then tokens of children that may be members.
-- Returns: {'ok', state, close_reason, control, session, gone tokens}, or {'unknown'}.
--
-- If nobody judged for so long that members could have missed a beat and be overdue, the server, the
-- network or the whole machine stood still: everybody gets one full ttl from now.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
--!include code
local JUDGED_AT_ONCE = 5 -- members removed by one call; the rest by the next
local LEASES_AT_ONCE = 1000 -- no further member is removed once so many leases went back

if not meta_load() then return {'unknown'} end
--!include frees_room
if FINAL[M.state] then return {'ok', M.state, M.close_reason, M.control, M.session, {}} end
local now, ttl = now_ms(), tonumber(ARGV[1])
if now - M.judged_ms > ttl - tonumber(ARGV[2]) then
  for _, token in ipairs(redis.call('ZRANGE', P .. 'members', 0, -1)) do
    redis.call('ZADD', P .. 'members', 'XX', now + ttl, token)
  end
end
local claims = tonumber(ARGV[3])
for i = 4, 3 + claims do redis.call('ZADD', P .. 'claims', 'XX', now + ttl, ARGV[i]) end
for i = 4 + claims, #ARGV do redis.call('ZADD', P .. 'members', 'XX', now + ttl, ARGV[i]) end
local gone, leases = {}, 0
for _, token in ipairs(redis.call('ZRANGEBYSCORE', P .. 'members', '-inf', now, 'LIMIT', 0,
    JUDGED_AT_ONCE)) do
  leases = leases + redis.call('HLEN', P .. 'l:' .. token)
  if #gone > 0 and leases > LEASES_AT_ONCE then break end
  member_remove(token, now, true)
  gone[#gone + 1] = token
end
M.judged_ms = now
code_judge(now)
settle(now)
blobs_flush()
slots_flush()
meta_flush()
return {'ok', M.state, M.close_reason, M.control, M.session, gone}
