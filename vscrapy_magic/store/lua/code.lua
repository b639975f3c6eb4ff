-- New code for a running crawl: who must have tried it, and when it comes into force.
-- Needs: meta.lua, slots.lua, queue.lua, members.lua.
--
-- The code in force has a number (meta: code_no; the code that was ordered is 1). An offer has the next
-- one. `offer` holds of it `n:<token>` worker (a member whose worker has to try it), `w:<worker>` token
-- of the child that has loaded it there and waits, the limits that come with it, and, when it is
-- decided, `said` (accepted, refused), `by` (worker) and `text` (why not).
local OFFER = P .. 'offer'
local CODE_LEFT = '2' -- of a member's field `leave`: it makes way for newer code
local TRIAL_JOINS_MS = 10000 -- for a child that has loaded the code: its place is kept for so long
local LIMITS = {limit_items = 'CLOSESPIDER_ITEMCOUNT', limit_pages = 'CLOSESPIDER_PAGECOUNT',
  limit_errors = 'CLOSESPIDER_ERRORCOUNT', limit_timeout_ms = 'CLOSESPIDER_TIMEOUT'}

-- Members that do not make way for newer code already.
local function members_staying()
  local staying = {}
  for _, token in ipairs(redis.call('ZRANGE', P .. 'members', 0, -1)) do
    if redis.call('HGET', P .. 'm:' .. token, 'leave') ~= CODE_LEFT then
      staying[#staying + 1] = token
    end
  end
  return staying
end

-- From now on no lease goes to a member with the code before; those that wait with the new one join.
local function code_accept(trials, limits, now)
  M.code_no = M.offer_no
  for field, name in pairs(LIMITS) do
    -- What a user has set by hand while the crawl ran stays.
    if limits[field] and redis.call('HEXISTS', P .. 'control', name) == 0 then
      M[field] = tonumber(limits[field])
    end
  end
  for _, token in ipairs(redis.call('ZRANGE', P .. 'members', 0, -1)) do
    redis.call('HSET', P .. 'm:' .. token, 'leave', CODE_LEFT)
  end
  for _, token in pairs(trials) do redis.call('ZADD', P .. 'claims', now + TRIAL_JOINS_MS, token) end
end

local function code_decide(said, worker, text, found, now)
  redis.call('HSET', OFFER, 'said', said, 'by', worker, 'text', text)
  if said == 'accepted' then code_accept(found.trials, found.limits, now) end
  M.offer_no = 0
  wake_all()
  for worker_, token in pairs(found.trials) do
    wake(token, 'c')
    redis.call('PEXPIRE', P .. 'wake:' .. token, 60000) -- it may be gone
    wake_worker(worker_)
  end
  for _, worker_ in pairs(found.needed) do wake_worker(worker_) end
end

local function code_found()
  local found = {needed = {}, trials = {}, limits = {}}
  local all = redis.call('HGETALL', OFFER)
  for i = 1, #all, 2 do
    local kind, name = string.match(all[i], '^(%a):(.*)$')
    if kind == 'n' then found.needed[name] = all[i + 1] end
    if kind == 'w' then found.trials[name] = all[i + 1] end
    if kind == 'l' then found.limits[name] = all[i + 1] end
  end
  return found
end

-- Decides an offer when all members' workers have answered, or too long have not.
local function code_judge(now)
  if M.offer_no == 0 then return end
  local found = code_found()
  local waiting, tried = nil, false
  for token, worker in pairs(found.needed) do
    if redis.call('ZSCORE', P .. 'members', token) then
      if found.trials[worker] then tried = true else waiting = worker end
    end
  end
  if tried and not waiting then
    code_decide('accepted', '', '', found, now)
  elseif not waiting then
    code_decide('refused', '', 'no worker is left that could try it', found, now)
  elseif now >= M.offer_until_ms then
    code_decide('refused', waiting, 'it did not say in time whether the spider can be loaded', found, now)
  end
end
