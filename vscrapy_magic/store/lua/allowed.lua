-- How many children a crawl may have now: one at first; more, doubling, while there is more ready
-- work than they can start.
local function children_allowed(members, queued, workers, ready_per_child)
  local allowed = math.max(1, math.min(2 * members, math.ceil(queued / ready_per_child)))
  if workers > 0 then allowed = math.min(allowed, workers) end
  return allowed
end

-- Children that are on their way: reserved, or called. While a crawl has no member at all, one that has
-- used up a third of its time counts no more: its worker may have been killed, and all would wait for it.
local function children_coming(claims, members, now, ttl_ms)
  return redis.call('ZCOUNT', claims, members > 0 and now or now + ttl_ms * 2 / 3, '+inf')
end
