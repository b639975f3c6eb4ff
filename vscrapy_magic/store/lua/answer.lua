-- A worker says whether it can load offered code; or somebody only looks how the offer stands.
--
-- KEYS: prefix of the crawl. ARGV: version, word (ok, no, or empty: only look), worker, token of the child
--   that has loaded it, text (why not).
-- Returns: {'ok', number in force, number offered (0 for none), said, by, text} of the newest offer;
--   {'unknown'}; {'over', state, close_reason}. An answer to what is decided changes nothing.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
--!include code
if not meta_load() then return {'unknown'} end
if FINAL[M.state] or M.state == 'closing' or M.state == 'stopping' then
  return {'over', M.state, M.close_reason}
end
--!include frees_room
local now = now_ms()
if M.offer_no == tonumber(ARGV[1]) and M.offer_no > 0 then
  if ARGV[2] == 'ok' then
    redis.call('HSETNX', OFFER, 'w:' .. ARGV[3], ARGV[4])
  elseif ARGV[2] == 'no' then
    code_decide('refused', ARGV[3], ARGV[5], code_found(), now)
  end
  code_judge(now)
end
meta_flush()
local said = redis.call('HMGET', OFFER, 'said', 'by', 'text')
return {'ok', M.code_no, M.offer_no, said[1] or '', said[2] or '', said[3] or ''}
