-- A child is about to stand still in the debugger.
--
-- KEYS: prefix of the crawl. ARGV: token, once (1: for the first failure of the crawl only), words (where it
--   stands, for users), record, ready_per_child.
-- Returns: {'ok', number}, or a word that says why it is not to stop, and then nothing was written:
--   {'unknown'}, {'over'} the crawl is over or about to end, {'gone'} not a member, {'off'} its user has left
--   the debugger for good, {'late'} another failure was the first.
--
-- `debugs` in meta is who stopped at the first failure: a token, or `done`. One that died there leaves its
-- place to the next failure, which will be the same one, run again.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
if not meta_load() then return {'unknown'} end
if FINAL[M.state] or M.state == 'closing' or M.state == 'stopping' then return {'over'} end
if M.no_halts == 1 then return {'off'} end
if not redis.call('ZSCORE', P .. 'members', ARGV[1]) then return {'gone'} end
if ARGV[2] == '1' then
  if M.debugs == 'done' or (M.debugs ~= '' and redis.call('ZSCORE', P .. 'members', M.debugs)) then
    return {'late'}
  end
end
--!include needs_room
if ARGV[2] == '1' then M.debugs = ARGV[1] end
M.halt_no = M.halt_no + 1
M.halts = M.halts + 1
if M.halts == 1 then M.halted_at = ARGV[3] end
redis.call('HSET', P .. 'halts', M.halt_no, cmsgpack.pack({ARGV[1], ARGV[3], ARGV[4]}))
wake_standby(tonumber(ARGV[5]), now_ms())
meta_flush()
return {'ok', M.halt_no}
