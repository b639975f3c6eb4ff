-- A member leaves: by itself, or found dead by its supervisor, which may name suspects.
--
-- KEYS: prefix of the crawl. ARGV: token, dead (1 or 0), then suspected leases.
-- Returns: {'ok', state, close_reason, buried origins}, or {'unknown'}.
--
-- A suspect gets a strike; with MAX_STRIKES it is buried: it counts as done, and `out` says so.
-- Leaving twice is as leaving once.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include members
local MAX_STRIKES = 3

if not meta_load() then return {'unknown'} end
if FINAL[M.state] then return {'ok', M.state, M.close_reason, {}} end -- swept with the crawl
local token, dead, now = ARGV[1], ARGV[2] == '1', now_ms()
local buried = {}
for i = 3, #ARGV do
  local origin = redis.call('HGET', P .. 'l:' .. token, ARGV[i])
  origin = origin and string.match(origin, '^([^:]+)')
  if origin and origin ~= 'start' and origin ~= 'idle' then
    local raw = redis.call('HGET', P .. 'a', origin)
    local f = raw and cmsgpack.unpack(raw) or {1, 0}
    f[2] = f[2] + 1
    M.again = 1
    if f[2] < MAX_STRIKES then
      redis.call('HSET', P .. 'a', origin, cmsgpack.pack(f))
    else
      local id, index = origin_split(origin)
      M.commit_no = M.commit_no + 1
      M.failures = M.failures + 1
      redis.call('XADD', P .. 'out', M.commit_no .. '-0', 'nonce', token .. ' buried ' .. ARGV[i],
        'total', M.out_bytes, 'item_count', 0, 'items', '', 'failure_count', 1, 'failures', '',
        'buried', origin, 'index', index, 'blob', redis.call('HGET', P .. 'b', id))
      request_done(origin)
      M.leased = M.leased - 1
      redis.call('HDEL', P .. 'l:' .. token, ARGV[i])
      redis.call('HDEL', P .. 'a', origin)
      redis.call('DEL', P .. 'p:' .. origin)
      buried[#buried + 1] = origin
    end
  end
end
redis.call('ZREM', P .. 'claims', token) -- it may have died before it joined
if redis.call('ZSCORE', P .. 'members', token) then member_remove(token, now, dead) end
settle(now)
blobs_flush()
slots_flush()
meta_flush()
return {'ok', M.state, M.close_reason, buried}
