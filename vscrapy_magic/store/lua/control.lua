-- A user changes settings of a running crawl; its children fetch them when they see the number move.
--
-- KEYS: prefix of the crawl. ARGV: ready_per_child, number of fields of meta that change, these fields
--   with their values, then names of settings with their values (msgpack).
-- Returns: {'ok', control}, or {'unknown'}, {'over', state, close_reason}: then nothing was written.
--
-- Fewer workers: the members that joined last are told to leave when they are done with what they hold.
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

local function members_told(allowed)
  local joined = {}
  for _, token in ipairs(members_staying()) do
    joined[#joined + 1] = {tonumber(redis.call('HGET', P .. 'm:' .. token, 'joined_ms')) or 0, token}
  end
  table.sort(joined, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  for i, member in ipairs(joined) do
    local leaves = allowed > 0 and i > allowed
    redis.call('HSET', P .. 'm:' .. member[2], 'leave', leaves and 1 or 0)
  end
end

local now, at = now_ms(), 2
for _ = 1, tonumber(ARGV[2]) do
  M[ARGV[at + 1]] = tonumber(ARGV[at + 2])
  if ARGV[at + 1] == 'workers' then members_told(M.workers) end
  at = at + 2
end
redis.call('HSET', P .. 'control', unpack(ARGV, at + 1))
M.control = M.control + 1
wake_all()
wake_standby(tonumber(ARGV[1]), now)
settle(now)
meta_flush()
return {'ok', M.control}
