-- The granting half of a step: shares of downloader slots, and leases.
-- Needs: all that step.lua includes before it; arg, token, now, want, MINE, HELD, SHARES, leases.
local SLOTS_LOOKED_AT = 64             -- slots tried for one step
local ROOM_FIRST = 2                   -- leases of an exclusive slot before its child says its room
local SUSPECTS_LOOKED_AT = 64          -- suspects tried for one step
local ALONE_MS = 10000                 -- then it may wait for requests that it brought: others join it

-- What the child says of its slots is the truth: it has read every share that was granted.
local shares_mine, rooms = {}, {}
local slots_freed = 0 -- places in slots that others may have now
local function read_slots()
  local before = redis.call('HGETALL', SHARES)
  local listed = {}
  for _ = 1, tonumber(arg()) do
    local slot, in_force, room = arg(), tonumber(arg()), tonumber(arg())
    listed[slot], rooms[slot] = in_force, room
  end
  for i = 1, #before, 2 do
    local slot, share = before[i], tonumber(before[i + 1])
    local in_force = listed[slot] or 0
    if in_force == 0 then
      slot_give_up(slot, token, share, now)
      redis.call('HDEL', SHARES, slot)
      slots_freed = slots_freed + 1
    else
      if in_force ~= share then
        local s = slot_get(slot)
        s.used = s.used - share + in_force
        slot_dirty[slot] = true
        redis.call('HSET', SHARES, slot, in_force)
        if in_force < share then slots_freed = slots_freed + 1 end
      end
      shares_mine[slot] = in_force
    end
  end
end

local reply_shares = {}
local members = redis.call('ZCARD', P .. 'members')

local function grant_share(slot)
  local s = slot_get(slot)
  local had = shares_mine[slot] or 0
  local share = slot_share(s, token, had, members)
  if share == 0 and had == 0 then return 0 end
  local idle_ms = -1
  if had == 0 then
    s.holders = s.holders + 1
    if s.freed > 0 then idle_ms = now - s.freed end
  end
  if s.excl == 1 and share > 0 and s.owner ~= token then
    s.owner = token
    if redis.call('ZREM', P .. 'ready', slot) == 1 then slot_ready(slot) end
  end
  if share > had then -- a smaller one counts when the child says that it is in force
    s.used = s.used + share - had
    redis.call('HSET', SHARES, slot, share)
    shares_mine[slot] = share
  end
  slot_dirty[slot] = true
  reply_shares[#reply_shares + 1] = slot
  reply_shares[#reply_shares + 1] = share
  reply_shares[#reply_shares + 1] = idle_ms
  return share
end

-- Members that joined make the shares smaller, also of a child that wants nothing now. A changed
-- rule may make them anything.
local function cut_shares()
  if tonumber(mine[4] or 0) ~= M.rule_no then
    for slot in pairs(shares_mine) do grant_share(slot) end
    return
  end
  for slot, share in pairs(shares_mine) do
    local s = share > 1 and slot_get(slot)
    if s and s.excl == 0 and share > math.max(1, math.ceil(s.limit / members)) then
      grant_share(slot)
    end
  end
end

local blobs_sent, reply_blobs, held_new = {}, {}, {}

-- Puts one lease into the reply, with the blob that holds its request.
local function tell_lease(id, origin)
  local kind, slot, blob, attempt, has_parts = origin, '', nil, 1, 0
  if origin ~= 'start' and origin ~= 'idle' then
    blob = origin_split(origin)
    kind, slot = 'request', blob_get(blob).slot
  end
  if M.again == 1 then
    local raw = redis.call('HGET', P .. 'a', origin)
    if raw then
      attempt = cmsgpack.unpack(raw)[1]
      has_parts = redis.call('EXISTS', P .. 'p:' .. origin)
    end
  end
  for _, v in ipairs({id, kind, origin, slot, attempt, has_parts}) do leases[#leases + 1] = v end
  if blob and not blobs_sent[blob] then
    blobs_sent[blob] = true
    reply_blobs[#reply_blobs + 1] = blob
    reply_blobs[#reply_blobs + 1] = redis.call('HGET', P .. 'b', blob)
  end
  return has_parts == 1
end

local function lease(origin)
  M.lease_no = M.lease_no + 1
  M.leased = M.leased + 1
  held_new[#held_new + 1] = M.lease_no
  held_new[#held_new + 1] = tell_lease(M.lease_no, origin) and origin .. ':p' or origin
end

-- The slot with the longest queue that gave nothing because of its limit: it holds the crawl.
local blocked, blocked_blobs = nil, 0
local function is_blocked(slot)
  local blobs = redis.call('ZCARD', P .. 'q:' .. slot)
  if blobs > blocked_blobs then blocked, blocked_blobs = slot, blobs end
end

local function limited_by()
  local s = slot_get(blocked)
  local words = s.own == 1 and s.words or M.slot_words
  if words == '' then return '' end
  return blocked == '' and words or words .. ' on ' .. blocked
end

local function lease_slots(where, budget)
  for _, slot in ipairs(redis.call('ZRANGE', P .. where, 0, SLOTS_LOOKED_AT - 1)) do
    if budget == 0 then break end
    local first = shares_mine[slot] == nil
    local share = grant_share(slot)
    if share > 0 then
      local room = rooms[slot]
      if first or not room then
        room = slot_get(slot).excl == 1 and ROOM_FIRST or 2 * share
      end
      local got = slot_take(slot, math.min(budget, room), function(blob, index)
        M.queued = M.queued - 1
        lease(blob .. '.' .. index)
      end)
      budget = budget - got
      rooms[slot] = room - got
      if room == 0 then is_blocked(slot) end
      if got > 0 and redis.call('ZSCORE', P .. where, slot) then
        M.turn = M.turn + 1
        redis.call('ZADD', P .. where, M.turn, slot)
      end
    else
      is_blocked(slot)
    end
  end
  return budget
end

-- A suspect runs with nothing beside it: when its child ends itself again, it was this one.
local function lease_suspect()
  for _, origin in ipairs(redis.call('LRANGE', P .. 'suspects', 0, SUSPECTS_LOOKED_AT - 1)) do
    local m = blob_get(origin_split(origin))
    if grant_share(m.slot) > 0 then
      redis.call('LREM', P .. 'suspects', 1, origin)
      M.queued = M.queued - 1
      lease(origin)
      redis.call('HSET', MINE, 'alone', M.lease_no, 'alone_until', now + ALONE_MS)
      return true
    end
    is_blocked(m.slot)
  end
  return false
end

local function is_alone()
  return mine[6] and now < tonumber(mine[7]) and redis.call('HEXISTS', HELD, mine[6]) == 1
end

-- Whether this child holds nothing but `start()`, which may wait for a suspect.
local function holds_only_start()
  local held = redis.call('HVALS', HELD)
  return #held == 1 and string.match(held[1], '^[^:]+') == 'start'
end

-- What the crawl waits for; nothing, mostly.
local function waits_for()
  if M.out_bytes - M.out_acked > M.out_max then return 'items are not collected by the sender' end
  if M.keep_open == 1 and M.start == 'done' and M.queued + M.leased == 0 then
    return 'kept open: push URLs or stop it'
  end
  return ''
end

local function park()
  local list = next(shares_mine) and 2 or 1
  redis.call('RPUSH', WAITING[list], token)
  redis.call('HSET', MINE, 'parked', list)
end

-- Somebody may hold leases that it cannot start yet: it gives them back, if this member may have them.
local function ask_spare()
  local spare = redis.call('ZREVRANGE', P .. 'spare', 0, 0)[1]
  if not spare or spare == token then return end
  for _, slot in ipairs(redis.call('HKEYS', P .. 'h:' .. spare)) do
    if shares_mine[slot] or slot_places(slot) > 0 then
      redis.call('ZREM', P .. 'spare', spare)
      return wake(spare, 'g')
    end
  end
end

-- Members that wait and could have leases of this one, which may give some back.
local function hungry()
  if M.state ~= 'running' then return 0 end
  local holding, parked = redis.call('LLEN', WAITING[2]), redis.call('LLEN', WAITING[1])
  local found = 0
  for slot in pairs(shares_mine) do
    if found >= parked then break end
    found = found + slot_places(slot)
  end
  return holding + math.min(found, parked)
end

local function lease_what_is_wanted()
  if M.state == 'starting' or M.state == 'running' or M.state == 'waiting' then
    local why = waits_for()
    if why ~= '' then
      wait_for(why, now)
    elseif M.state ~= 'running' then
      if M.started_ms == 0 then M.started_ms = now end
      M.why = ''
      run_on(now)
    end
  end
  if want == 0 then return end
  if M.state == 'waiting' then return park() end
  if M.state ~= 'running' or is_alone() then return end
  local suspects = redis.call('EXISTS', P .. 'suspects') == 1
  if suspects and redis.call('EXISTS', HELD) == 0 and lease_suspect() then return end
  local budget = math.min(want, math.max(1, math.ceil(M.queued / members)))
  if M.start == 'todo' then
    M.start = 'leased'
    lease('start')
  end
  budget = lease_slots('r:' .. token, budget)
  if budget > 0 then budget = lease_slots('ready', budget) end
  if suspects and #leases == 0 and holds_only_start() then lease_suspect() end
  if M.queued + M.leased == 0 and M.start == 'done' and M.idle == '' and M.keep_open == 0
      and now >= M.idle_after_ms then
    M.idle = 'leased'
    lease('idle')
  end
  if budget == 0 or M.queued == 0 then
    M.limited = ''
  elseif #leases == 0 and blocked then
    M.limited = limited_by()
  end
  if #leases == 0 then
    park()
    ask_spare()
  end
end
