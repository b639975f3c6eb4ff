-- How many children a crawl may have now: one at first; more, doubling, while there is more ready
-- work than they can start.
local function children_allowed(members, queued, workers, ready_per_child)
  local allowed = math.max(1, math.min(2 * members, math.ceil(queued / ready_per_child)))
  if workers > 0 then allowed = math.min(allowed, workers) end
  return allowed
end
