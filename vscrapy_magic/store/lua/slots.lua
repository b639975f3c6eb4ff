-- Downloader slots: who may use which, and which of them have queued requests.
-- Needs: meta.lua.
--
-- A slot's record is limit, exclusive, downloads granted, holders, when it was last given up (ms),
-- owner (exclusive slots only), number of the rule that it follows, whether it has a rule of its own,
-- the words of that. The crawl's rule (meta: slot_limit, slot_excl, slot_words) is what the spider's
-- settings say of all other slots; when it changes, `rule_no` does, and each slot follows when it is
-- looked at next. A share is the limit divided by the members of the crawl: all of them take from all
-- slots in rotation, and nobody has to wait until another one shrinks.
-- A slot with queued requests stands in `ready`, or in `r:<owner>` while an owner has it. Its score
-- is a turn number, so that slots are served in rotation.
local slot_cache, slot_dirty = {}, {}
local slots_opened = 0 -- slots with queued requests that were one member's and are everybody's now
local slots_added = {} -- slots that got new requests, and how many

-- Needs: slot_get(name) before.
local function slot_ready(name)
  local s = slot_cache[name]
  local where = s.owner ~= '' and ('r:' .. s.owner) or 'ready'
  M.turn = M.turn + 1
  redis.call('ZADD', P .. where, 'NX', M.turn, name)
end

-- Lets a slot follow a rule. One that was shared and is exclusive now has no owner yet: the first of
-- its holders that steps becomes it, and the others are told that their share is 0.
local function slot_follow(name, s, limit, excl)
  if s.limit == limit and s.excl == excl then return end
  s.limit, s.excl = limit, excl
  slot_dirty[name] = true
  if excl == 0 and s.owner ~= '' then
    local owner = s.owner
    s.owner = ''
    if redis.call('ZREM', P .. 'r:' .. owner, name) == 1 then
      slot_ready(name)
      slots_opened = slots_opened + 1
    end
  end
end

local function slot_get(name)
  local s = slot_cache[name]
  if s then return s end
  local raw = redis.call('HGET', P .. 'slots', name)
  if raw then
    local f = cmsgpack.unpack(raw)
    s = {limit = f[1], excl = f[2], used = f[3], holders = f[4], freed = f[5], owner = f[6],
      rule = f[7], own = f[8], words = f[9]}
  else
    -- Of a slot that nobody has said anything about the most careful is assumed.
    s = {limit = 1, excl = 1, used = 0, holders = 0, freed = 0, owner = '', rule = 0, own = 0,
      words = ''}
  end
  slot_cache[name] = s
  if s.own == 0 and s.rule ~= M.rule_no then
    s.rule = M.rule_no
    slot_follow(name, s, M.slot_limit, M.slot_excl)
  end
  return s
end

-- What a child says of one slot.
local function slot_told(name, limit, excl, words)
  local s = slot_get(name)
  s.own = M.rule_no > 0 and (limit ~= M.slot_limit or excl ~= M.slot_excl) and 1 or 0
  s.words = s.own == 1 and words or ''
  if s.own == 1 and excl == 0 then M.own_limit = math.max(M.own_limit, limit) end
  slot_dirty[name] = true
  slot_follow(name, s, limit, excl)
end

-- What a child says of all slots that have no rule of their own.
local function slots_told(limit, excl, words)
  if M.rule_no > 0 and limit == M.slot_limit and excl == M.slot_excl and words == M.slot_words then
    return
  end
  M.slot_limit, M.slot_excl, M.slot_words = limit, excl, words
  M.rule_no, M.limited = M.rule_no + 1, ''
end

local function slots_flush()
  for name in pairs(slot_dirty) do
    local s = slot_cache[name]
    -- An exclusive slot is remembered: its next owner must know when it was last used.
    if s.excl == 0 and s.own == 0 and s.holders == 0 and redis.call('EXISTS', P .. 'q:' .. name) == 0 then
      redis.call('HDEL', P .. 'slots', name)
    else
      redis.call('HSET', P .. 'slots', name,
        cmsgpack.pack({s.limit, s.excl, s.used, s.holders, s.freed, s.owner, s.rule, s.own,
          s.words}))
    end
  end
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

-- How many members that hold nothing of a slot could begin there now.
local function slot_places(name)
  local s = slot_get(name)
  if s.excl == 1 then return s.owner == '' and s.holders == 0 and 1 or 0 end
  return math.max(0, s.limit - s.used)
end

-- Whether somebody's share of a slot is smaller with `after` members than with `before`. Where all
-- have a share of 1 a further member changes nothing, and nobody need be woken to hear of it.
local function shares_shrink(before, after)
  local function shrinks(limit) return math.ceil(limit / after) < math.ceil(limit / before) end
  return (M.slot_excl == 0 and shrinks(M.slot_limit)) or shrinks(M.own_limit)
end

-- The share of a slot that `token` may have next, `mine` being what it has now; 0 for none.
local function slot_share(s, token, mine, members)
  if s.excl == 1 then
    if s.owner ~= '' and s.owner ~= token then return 0 end
    -- Holders from when it was shared may still send: nobody joins them.
    if s.owner == '' and s.holders > 0 and mine == 0 then return 0 end
    return s.limit
  end
  local part = math.max(1, math.ceil(s.limit / members))
  return math.max(0, math.min(part, mine + s.limit - s.used))
end
