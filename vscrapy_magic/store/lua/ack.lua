-- The sender has kept outputs: they need not be kept here. The last one stays, as its witness.
--
-- KEYS: prefix of the crawl. ARGV: commit number, its nonce, its running total of bytes.
-- Returns: {'ok'}, {'unknown'}, or {'rolled_back'}: the server holds another history than the one
--   that the sender read.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include members
if not meta_load() then return {'unknown'} end
local entry = redis.call('XRANGE', P .. 'out', ARGV[1] .. '-0', ARGV[1] .. '-0')[1]
if not entry or entry[2][2] ~= ARGV[2] then
  if not FINAL[M.state] then
    M.close_reason = 'store_rolled_back'
    set_state('store_rolled_back', now_ms())
    meta_flush()
  end
  return {'rolled_back'}
end
redis.call('XTRIM', P .. 'out', 'MINID', ARGV[1] .. '-0')
if tonumber(ARGV[3]) > M.out_acked then
  M.out_acked = tonumber(ARGV[3])
  wake_parked(redis.call('LLEN', P .. 'parked'))
end
meta_flush()
return {'ok'}
