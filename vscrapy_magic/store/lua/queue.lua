-- Queued requests: blobs of up to 32, and what became of each in a mask.
-- Needs: meta.lua, slots.lua.
--
-- `b` holds the blobs, `bm` of each "<mask> <score> <fifo> <slot>". A mask has one letter a request:
-- q queued, l leased or suspect, . done or never wanted. A blob goes when its mask is all dots.
-- `q:<slot>` orders the blobs that have a q; its member is the blob's id, 11 hex digits that fall
-- with time (newest first, Scrapy's default) or rise with it (fifo).
-- `suspects` lists queued requests that were in flight in a child that ended itself, nobody knows by
-- which of them: each is run with nothing beside it (grant.lua).
local QUEUED, LEASED, DONE = 113, 108, 46 -- q, l, .
local mask_cache, mask_dirty = {}, {}

local function blob_get(id)
  local m = mask_cache[id]
  if m then return m end
  local raw = redis.call('HGET', P .. 'bm', id)
  if not raw then return nil end
  local mask, score, fifo, slot = string.match(raw, '^(%S+) (%S+) (%S) (.*)$')
  m = {bits = {string.byte(mask, 1, -1)}, score = score, fifo = fifo, slot = slot}
  mask_cache[id] = m
  return m
end

local function blobs_flush()
  for id in pairs(mask_dirty) do
    local m = mask_cache[id]
    local alive = false
    for i = 1, #m.bits do
      if m.bits[i] ~= DONE then alive = true break end
    end
    if alive then
      redis.call('HSET', P .. 'bm', id,
        string.char(unpack(m.bits)) .. ' ' .. m.score .. ' ' .. m.fifo .. ' ' .. m.slot)
    else
      redis.call('HDEL', P .. 'bm', id)
      redis.call('HDEL', P .. 'b', id)
    end
  end
end

local function blob_add(number, fifo, slot, score, bits, data)
  local id = string.format('%011x', fifo and number or (17592186044415 - number)) -- 2^44 - 1
  local m = {bits = bits, score = score, fifo = fifo and '1' or '0', slot = slot}
  mask_cache[id], mask_dirty[id] = m, true
  redis.call('HSET', P .. 'b', id, data)
  redis.call('ZADD', P .. 'q:' .. slot, score, id)
  slot_ready(slot)
  return id
end

local function origin_split(origin)
  local id, index = string.match(origin, '^(%x+)%.(%d+)$')
  return id, tonumber(index)
end

-- A leased request is done.
local function request_done(origin)
  local id, index = origin_split(origin)
  local m = blob_get(id)
  m.bits[index] = DONE
  mask_dirty[id] = true
end

-- A leased request goes back to its queue.
local function request_back(origin)
  local id, index = origin_split(origin)
  local m = blob_get(id)
  m.bits[index] = QUEUED
  mask_dirty[id] = true
  redis.call('ZADD', P .. 'q:' .. m.slot, m.score, id)
  slot_get(m.slot)
  slot_ready(m.slot)
end

-- A leased request is to be run with nothing beside it; its letter stays l, so that no queue has it.
local function suspect_back(origin)
  redis.call('RPUSH', P .. 'suspects', origin)
end

-- Takes up to `count` requests of a slot; calls `each(blob_id, index)` for each.
local function slot_take(slot, count, each)
  local q, got = P .. 'q:' .. slot, 0
  while got < count do
    local id = redis.call('ZRANGE', q, 0, 0)[1]
    if not id then break end
    local m = blob_get(id)
    local first, last, by = #m.bits, 1, -1
    if m.fifo == '1' then first, last, by = 1, #m.bits, 1 end
    local left = false
    for i = first, last, by do
      if m.bits[i] == QUEUED then
        if got == count then left = true break end
        m.bits[i] = LEASED
        got = got + 1
        each(id, i)
      end
    end
    mask_dirty[id] = true
    if not left then redis.call('ZREM', q, id) end
  end
  if redis.call('EXISTS', q) == 0 then slot_empty(slot) end
  return got
end
