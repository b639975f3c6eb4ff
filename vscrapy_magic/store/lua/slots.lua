-- Downloader slots: who may use which, and which of them have queued requests.
-- Needs: meta.lua.
--
-- A slot's record is limit, exclusive, downloads granted, holders, when it was last given up (ms),
-- owner (exclusive slots only). A share is the limit divided by the members of the crawl: all of them
-- take from all slots in rotation, and nobody has to wait until another one shrinks.
-- A slot with queued requests stands in `ready`, or in `r:<owner>` while an owner has it. Its score
-- is a turn number, so that slots are served in rotation.
local slot_cache, slot_dirty = {}, {}

local function slot_get(name)
  local s = slot_cache[name]
  if s then return s end
  local raw = redis.call('HGET', P .. 'slots', name)
  if raw then
    local f = cmsgpack.unpack(raw)
    s = {limit = f[1], excl = f[2], used = f[3], holders = f[4], freed = f[5], owner = f[6]}
  else
    s = {limit = 1, excl = 0, used = 0, holders = 0, freed = 0, owner = ''}
  end
  slot_cache[name] = s
  return s
end

local function slots_flush()
  for name in pairs(slot_dirty) do
    local s = slot_cache[name]
    -- An exclusive slot is remembered: its next owner must know when it was last used.
    if s.excl == 0 and s.holders == 0 and redis.call('EXISTS', P .. 'q:' .. name) == 0 then
      redis.call('HDEL', P .. 'slots', name)
    else
      redis.call('HSET', P .. 'slots', name,
        cmsgpack.pack({s.limit, s.excl, s.used, s.holders, s.freed, s.owner}))
    end
  end
end

local function slot_ready(name)
  local s = slot_get(name)
  local where = s.owner ~= '' and ('r:' .. s.owner) or 'ready'
  M.turn = M.turn + 1
  redis.call('ZADD', P .. where, 'NX', M.turn, name)
end

local function slot_empty(name)
  local s = slot_get(name)
  local where = s.owner ~= '' and ('r:' .. s.owner) or 'ready'
  redis.call('ZREM', P .. where, name)
  slot_dirty[name] = true
end

-- Gives up what `token` holds of a slot.
local function slot_give_up(name, token, share, now)
  local s = slot_get(name)
  s.used = s.used - share
  s.holders = s.holders - 1
  s.freed = now
  if s.owner == token then
    s.owner = ''
    if redis.call('ZREM', P .. 'r:' .. token, name) == 1 then slot_ready(name) end
  end
  slot_dirty[name] = true
end

-- The share of a slot that `token` may have next, `mine` being what it has now; 0 for none.
local function slot_share(s, token, mine, members)
  if s.excl == 1 then
    if s.owner ~= '' and s.owner ~= token then return 0 end
    return s.limit
  end
  local part = math.max(1, math.ceil(s.limit / members))
  return math.max(0, math.min(part, mine + s.limit - s.used))
end
