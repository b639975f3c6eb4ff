-- A session wishes to collect what a crawl brings, takes that over, gives it back, or only looks.
--
-- KEYS: prefix of the crawl, deadlines of sessions.
-- ARGV: `wish` (unless another session that is not gone collects), `take` (whoever does), `leave` or
--   `look`; session, its record, its place (the folder that it keeps outputs in), and of a `leave`
--   the number that it collects by.
-- Returns: {'ok' or 'held', number, record of the holder, its place, last acknowledged commit, its nonce,
--   last commit that this place acknowledged, what other places keep (name, value, ...)}, or {'unknown'}.
--
-- The number rises with each change: an acknowledgement under an old one changes nothing (ack.lua).
-- A holder is there while `beat.lua` has not judged its session gone; nobody else judges.
-- On a full server, too (see frees_room.lua).
local P = KEYS[1]
if redis.call('EXISTS', P .. 'meta') == 0 then return {'unknown'} end
--!include frees_room
local meta = P .. 'meta'
local at = redis.call('HMGET', meta, 'collector_no', 'collector', 'collector_record', 'acked_no', 'acked_nonce',
  'collector_place')
local no, holder = tonumber(at[1] or 0), at[2] or ''
local is_held = holder ~= '' and holder ~= ARGV[2] and redis.call('ZSCORE', KEYS[2], holder)
local said = 'held'
if ARGV[1] == 'leave' then
  if holder == ARGV[2] and no == tonumber(ARGV[5]) then redis.call('HSET', meta, 'collector', '') end
elseif ARGV[1] == 'take' or (ARGV[1] == 'wish' and not is_held) then
  said, no, at[3] = 'ok', no + 1, ARGV[3]
  redis.call('HSET', meta, 'collector_no', no, 'collector', ARGV[2], 'collector_record', ARGV[3],
    'collector_place', ARGV[4])
elseif not is_held then
  at[3] = '' -- nobody, or one that is gone, or the one that looks
end
local kept, own = {}, '0'
local fields = redis.call('HGETALL', meta)
for i = 1, #fields, 2 do
  local place = string.match(fields[i], '^kept:(.*)$')
  if place == ARGV[4] then
    own = string.match(fields[i + 1], '^(%d+)')
  elseif place then
    kept[#kept + 1] = place
    kept[#kept + 1] = fields[i + 1]
  end
end
return {said, no, at[3] or '', at[6] or '', tonumber(at[4] or 0), at[5] or '', tonumber(own), kept}
