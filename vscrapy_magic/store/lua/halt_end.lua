-- A child leaves the debugger, and goes on.
--
-- KEYS: prefix of the crawl. ARGV: number of the halt, last entry (number, text), off (1: no breakpoint of this
--   crawl stops again, and who stands at one goes on), kept_ms (what was shown stays for so long).
-- Returns: {'ok'}, or {'unknown'}. Ending twice is as ending once.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
if not meta_load() then return {'unknown'} end
--!include frees_room
if ARGV[4] == '1' then
  M.no_halts = 1
  for _, number in ipairs(redis.call('HKEYS', P .. 'halts')) do
    if number ~= ARGV[1] then redis.call('RPUSH', P .. 'halt-in:' .. number, 'x') end
  end
end
local raw = redis.call('HGET', P .. 'halts', ARGV[1])
if raw then
  if M.debugs == cmsgpack.unpack(raw)[1] then M.debugs = 'done' end
  halt_forget(ARGV[1])
  redis.call('XADD', P .. 'halt:' .. ARGV[1], ARGV[2] .. '-0', 'kind', 'end', 'text', ARGV[3])
  redis.call('PEXPIRE', P .. 'halt:' .. ARGV[1], ARGV[5])
end
meta_flush()
return {'ok'}
