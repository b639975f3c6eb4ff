-- The sender has kept outputs: they need not be kept here. The last one stays, as its witness.
--
-- KEYS: prefix of the crawl.
-- ARGV: commit number, its nonce, its running total of bytes; number and session of the collector, the
--   place where it keeps outputs, its items there so far, its host.
-- On a full server, too: it begins with a removal (see frees_room.lua).
-- Returns: {'ok'}, {'unknown'}, {'lost'}: this one does not collect the crawl (any more), or
--   {'rolled_back'}: the server holds another history than the one that the sender read.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
if not meta_load() then return {'unknown'} end
local at = redis.call('HMGET', P .. 'meta', 'collector_no', 'collector', 'acked_no')
if (at[1] or '0') ~= ARGV[4] or (at[2] or '') ~= ARGV[5] then return {'lost'} end
local entry = redis.call('XRANGE', P .. 'out', ARGV[1] .. '-0', '+', 'COUNT', 1)[1]
if not entry or entry[1] ~= ARGV[1] .. '-0' or entry[2][2] ~= ARGV[2] then
  -- An older one that was on its way for long, on a connection that the sender has given up?
  if entry and entry[1] ~= ARGV[1] .. '-0' and tonumber(ARGV[3]) <= M.out_acked then return {'ok'} end
  if not FINAL[M.state] then roll_back(now_ms()) end
  return {'rolled_back'}
end
redis.call('XTRIM', P .. 'out', 'MINID', ARGV[1] .. '-0')
if tonumber(ARGV[1]) > tonumber(at[3] or 0) then
  redis.call('HSET', P .. 'meta', 'acked_no', ARGV[1], 'acked_nonce', ARGV[2],
    'kept:' .. ARGV[6], ARGV[1] .. ' ' .. ARGV[7] .. ' ' .. ARGV[8])
end
if tonumber(ARGV[3]) > M.out_acked then
  M.out_acked = tonumber(ARGV[3])
  -- One that looks lets the crawl run again, and wakes as many as there is work for.
  if M.state == 'waiting' and M.out_bytes - M.out_acked <= M.out_max then
    if wake_first(WAITING[2], 1) == 0 then wake_first(WAITING[1], 1) end
  end
end
meta_flush()
return {'ok'}
