-- A user offers new code for a running crawl: every worker that takes part is to try it.
--
-- KEYS: prefix of the crawl. ARGV: the code (message), for how long it may be undecided (ms), then the
--   limits that come with it (field of meta, value).
-- Returns: {'ok', version}; {'accepted', version} when no worker takes part; {'busy'}: another offer is
--   undecided, or its children are changing just now; {'unknown'}; {'over', state, close_reason}.
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
--!include needs_room
local now = now_ms()
code_judge(now)
local staying = members_staying()
redis.call('ZREMRANGEBYSCORE', P .. 'claims', '-inf', now)
local coming = redis.call('ZCARD', P .. 'members') + redis.call('ZCARD', P .. 'claims')
if M.offer_no > 0 or (#staying == 0 and coming > 0) then
  meta_flush()
  return {'busy'}
end
M.offer_last = math.max(M.offer_last, M.code_no) + 1 -- a refused number is not used again
M.offer_no, M.offer_until_ms = M.offer_last, now + tonumber(ARGV[2])
redis.call('HSET', P .. 'codes', M.offer_no, ARGV[1])
redis.call('DEL', OFFER)
for i = 3, #ARGV, 2 do redis.call('HSET', OFFER, 'l:' .. ARGV[i], ARGV[i + 1]) end
for _, token in ipairs(staying) do
  local worker = redis.call('HGET', P .. 'm:' .. token, 'worker')
  redis.call('HSET', OFFER, 'n:' .. token, worker)
  wake_worker(worker)
end
local said = 'ok'
if #staying == 0 then
  said = 'accepted'
  code_decide(said, '', '', code_found(), now)
end
meta_flush()
return {said, M.offer_last}
