-- Members of a crawl (its children), their leases, and what becomes of the crawl when they change.
-- Needs: meta.lua, slots.lua, queue.lua.
local function wake(token, word)
  local key = P .. 'wake:' .. token
  redis.call('LPUSH', key, word)
  redis.call('LTRIM', key, 0, 0)
end

-- Members that wait for work: those that hold a share of some slot, and those that hold nothing.
-- `m:<token>` says in which list one stands: 0 in none, 1 or 2.
local WAITING = {P .. 'parked', P .. 'holding'}
local PLACES_LOOKED_AT = 64 -- slots asked for places, for one wake-up

local function unpark(token, list)
  if WAITING[list] then
    redis.call('LREM', WAITING[list], 0, token)
    redis.call('HSET', P .. 'm:' .. token, 'parked', 0)
  end
end

-- Wakes the members of a list that have waited longest; returns how many.
local function wake_first(list, count)
  for woken = 0, count - 1 do
    local token = redis.call('LPOP', list)
    if not token then return woken end
    redis.call('HSET', P .. 'm:' .. token, 'parked', 0)
    wake(token, 'w')
  end
  return math.max(0, count)
end

-- How many of those that hold nothing could get something, `count` being enough.
local function places(count)
  local found = 0
  if M.start == 'todo' or M.queued + M.leased == 0 or redis.call('EXISTS', P .. 'suspects') == 1 then
    found = 1
  end
  for _, slot in ipairs(redis.call('ZRANGE', P .. 'ready', 0, PLACES_LOOKED_AT - 1)) do
    if found >= count then break end
    found = found + slot_places(slot)
  end
  return math.min(found, count)
end

-- Lets `count` members look for work, at most: first those that may go on where they are. Of the others
-- no more than could get a share of a slot: the rest of two hundred would step for nothing.
local function wake_parked(count)
  count = count - wake_first(WAITING[2], count)
  if count > 0 and redis.call('EXISTS', WAITING[1]) == 1 then wake_first(WAITING[1], places(count)) end
end

-- Requests came: the owners of their slots hear of it, and others as far as there is work for them.
local function wake_for_added(others, token)
  for slot, count in pairs(slots_added) do
    local owner = slot_get(slot).owner
    if owner == '' then
      others = others + count
    elseif owner ~= token then
      local list = tonumber(redis.call('HGET', P .. 'm:' .. owner, 'parked') or 0)
      if WAITING[list] then
        unpark(owner, list)
        wake(owner, 'w')
      end
    end
  end
  wake_parked(math.min(M.queued, others))
end

local function wake_all()
  for _, token in ipairs(redis.call('ZRANGE', P .. 'members', 0, -1)) do wake(token, 's') end
end

local function set_state(state, now)
  if M.state == state then return end
  M.state = state
  redis.call('HSET', P .. 'meta', 'state_ms', now)
  if FINAL[state] then redis.call('HSET', P .. 'meta', 'ended_ms', now) end
  wake_all()
end

-- The crawl runs, or runs again: who waits for work hears of it as far as there is some.
local function run_on(now)
  M.state = 'running'
  redis.call('HSET', P .. 'meta', 'state_ms', now)
  wake_parked(M.queued)
end

-- The server holds another history than the one that a child or the sender has seen.
local function roll_back(now)
  M.close_reason = 'store_rolled_back'
  M.why = 'the server lost what it had acknowledged; run it again, on one with appendfsync always'
  set_state('store_rolled_back', now)
  meta_flush()
end

-- The crawl waits; says for what, and since when it is for that.
local function wait_for(why, now)
  if M.state == 'waiting' then
    if M.why ~= why then redis.call('HSET', P .. 'meta', 'state_ms', now) end
    M.why = why
    return
  end
  -- Nobody is woken: children go on or are parked, whether the crawl is called running or waiting.
  M.why, M.state = why, 'waiting'
  redis.call('HSET', P .. 'meta', 'state_ms', now)
end

-- Lets a worker look at once.
local function wake_worker(worker)
  local key = 'vscrapy:wake:' .. worker
  redis.call('LPUSH', key, 's')
  redis.call('LTRIM', key, 0, 0)
  redis.call('PEXPIRE', key, 60000)
end

-- Workers that stand by may join when there is more to do than the members can start: as many as may
-- have a child more. One that was called counts for a moment as if it had a claim (`=<worker>`), so that
-- the next commits do not call others to the same place. A new crawl is shown to a few workers only; the
-- others hear of it, once, when it wants more than have come.
local CALLED_MS = 1000
local function wake_standby(ready_per_child, now)
  local members = redis.call('ZCARD', P .. 'members')
  local count = children_allowed(members, M.queued, M.workers, ready_per_child) - members
  if count > 0 then count = count - redis.call('ZCOUNT', P .. 'claims', now, '+inf') end
  for _ = 1, count do
    local worker = redis.call('LPOP', P .. 'standby')
    if not worker then
      if M.called == 1 then return end
      M.called = 1
      for _, name in ipairs(redis.call('ZRANGEBYSCORE', 'vscrapy:workers:due', now, '+inf')) do
        wake_worker(name)
      end
      return
    end
    redis.call('ZADD', P .. 'claims', now + CALLED_MS, '=' .. worker)
    wake_worker(worker)
  end
end

local function close_with(reason, final, now)
  M.close_reason, M.final = reason, final
  set_state('stopping', now)
end

-- Why a crawl ends that scrapes nothing, if it is to; as Scrapy, looks once in each period.
local function barren(now)
  if M.limit_no_item_pages > 0 and M.pages - M.item_pages >= M.limit_no_item_pages then
    return 'closespider_pagecount_no_item'
  end
  if M.limit_no_item_ms == 0 or M.started_ms == 0 then return nil end
  if M.period_ms == 0 then M.period_ms = M.started_ms end
  if now - M.period_ms < M.limit_no_item_ms then return nil end
  if M.items == M.period_items then return 'closespider_timeout_no_item' end
  M.period_ms, M.period_items = now, M.items
  return nil
end

-- Brings the state to where the counts say that it is. Call it after every change.
local function settle(now)
  if M.state == 'starting' or M.state == 'running' or M.state == 'waiting' then
    local why = barren(now)
    if M.limit_items > 0 and M.items >= M.limit_items then
      close_with('closespider_itemcount', 'finished', now)
    elseif M.limit_pages > 0 and M.pages >= M.limit_pages then
      close_with('closespider_pagecount', 'finished', now)
    elseif M.limit_errors > 0 and M.errors >= M.limit_errors then
      close_with('closespider_errorcount', 'finished', now)
    elseif M.limit_timeout_ms > 0 and M.started_ms > 0 and now - M.started_ms >= M.limit_timeout_ms then
      close_with('closespider_timeout', 'finished', now)
    elseif why then
      close_with(why, 'finished', now)
    elseif M.queued + M.leased == 0 and M.start == 'done' and M.idle == 'done' then
      M.close_reason, M.final = 'finished', 'finished'
      set_state('closing', now)
    end
  end
  local members = redis.call('ZCARD', P .. 'members')
  if M.state == 'stopping' and M.leased == 0 then set_state('closing', now) end
  if M.state == 'closing' and members == 0 then set_state(M.final, now) end
  if (M.state == 'running' or M.state == 'starting' or M.state == 'waiting') and members == 0 then
    wait_for('no worker takes part', now)
  end
end

-- What `a` knows of a lease that did not end well: its number of runs, strikes, whether it is a suspect.
local function runs_get(origin)
  local raw = M.again == 1 and redis.call('HGET', P .. 'a', origin)
  return raw and cmsgpack.unpack(raw) or {1, 0, 0}
end

local function runs_set(origin, f)
  redis.call('HSET', P .. 'a', origin, cmsgpack.pack(f))
  M.again = 1
end

-- A lease ends without a commit; `again` when it may have run already.
local function release(origin, again)
  M.leased = M.leased - 1
  local f = runs_get(origin)
  if origin == 'start' then
    M.start = 'todo'
  elseif origin == 'idle' then
    M.idle = ''
  else
    if f[3] == 1 then suspect_back(origin) else request_back(origin) end
    M.queued = M.queued + 1
  end
  if again then
    f[1] = f[1] + 1
    runs_set(origin, f)
  end
end

-- Ends the membership of `token`: what it holds goes back.
local function member_remove(token, now, again)
  local held = redis.call('HGETALL', P .. 'l:' .. token)
  for i = 1, #held, 2 do
    -- One that published parts has run, also when its member leaves by itself.
    local origin, has = string.match(held[i + 1], '^([^:]+)(:?p?)$')
    release(origin, again or has ~= '')
  end
  local shares = redis.call('HGETALL', P .. 'h:' .. token)
  for i = 1, #shares, 2 do slot_give_up(shares[i], token, tonumber(shares[i + 1]), now) end
  redis.call('DEL', P .. 'm:' .. token, P .. 'l:' .. token, P .. 'h:' .. token,
    P .. 'r:' .. token, P .. 'wake:' .. token)
  redis.call('ZREM', P .. 'members', token)
  redis.call('ZREM', P .. 'spare', token)
  for _, list in ipairs(WAITING) do redis.call('LREM', list, 0, token) end
  wake_parked((#held + #shares) / 2) -- a slot that was its own may be another's now
end
