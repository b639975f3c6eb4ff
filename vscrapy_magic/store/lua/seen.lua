-- Seen fingerprints: 64-bit numbers in sets that Redis keeps as sorted arrays of 8 bytes a number,
-- as long as a set has at most 512 (`set-max-intset-entries`).
-- Needs: meta.lua.
--
-- Level n has 256 * 8^n sets and is full at 400 a set on average; then the next level begins. Old
-- levels are only asked. Fingerprints stay decimal strings: a Lua number has 53 bits.
local SEEN_SETS, SEEN_GROWTH, SEEN_FULL = 256, 8, 400

local function seen_key(level, fp)
  local sets = SEEN_SETS * SEEN_GROWTH ^ level
  return P .. 's' .. level .. ':' .. (tonumber(string.sub(fp, -9)) % sets)
end

-- Whether the fingerprint is new; remembers it.
local function seen_add(fp)
  for level = 0, M.level - 1 do
    if redis.call('SISMEMBER', seen_key(level, fp), fp) == 1 then return false end
  end
  if redis.call('SADD', seen_key(M.level, fp), fp) == 0 then return false end
  M.level_count = M.level_count + 1
  if M.level_count >= SEEN_FULL * SEEN_SETS * SEEN_GROWTH ^ M.level then
    M.level, M.level_count = M.level + 1, 0
  end
  return true
end
