-- The committing half of a step.
-- Needs: all that step.lua includes before it; arg, token, seq, now, keep_open, HELD, dropped.
local STATS_MAX = 10000 -- stats keys of a crawl

-- Reads a list of lease numbers (and what stands beside each); adds those not held to `lost`.
local lost = {}
local function read_leases(width)
  local ids, beside = {}, {}
  for i = 1, tonumber(arg()) do
    ids[i] = arg()
    if width == 2 then beside[i] = arg() end
  end
  if #ids == 0 then return ids, {}, beside end
  local values = redis.call('HMGET', HELD, unpack(ids))
  for i, id in ipairs(ids) do
    if not values[i] then lost[#lost + 1] = id end
  end
  return ids, values, beside
end

local function commit_leases(ended, ended_held, parts, parts_held, part_keys, released, released_held)
  for i, id in ipairs(parts) do
    local origin, has = string.match(parts_held[i], '^([^:]+)(:?p?)$')
    redis.call('RPUSH', P .. 'p:' .. origin, part_keys[i])
    if has == '' then redis.call('HSET', HELD, id, origin .. ':p') end
  end
  for i, id in ipairs(ended) do
    local origin, has = string.match(ended_held[i], '^([^:]+)(:?p?)$')
    if has ~= '' then redis.call('DEL', P .. 'p:' .. origin) end
    M.leased = M.leased - 1
    if origin == 'start' then
      M.start = 'done'
    elseif origin == 'idle' then
      M.idle = 'done'
      if keep_open then
        M.idle, M.idle_after_ms = '', now + 1000
      end
    else
      request_done(origin)
    end
    if M.again == 1 then redis.call('HDEL', P .. 'a', origin) end
  end
  if #ended > 0 then redis.call('HDEL', HELD, unpack(ended)) end
  for i, _ in ipairs(released) do
    -- One that published parts has run: its next holder must know.
    local origin, has = string.match(released_held[i], '^([^:]+)(:?p?)$')
    release(origin, has ~= '')
  end
  if #released > 0 then redis.call('HDEL', HELD, unpack(released)) end
end

local function commit_requests()
  for _ = 1, tonumber(arg()) do
    local s = slot_get(arg())
    s.limit, s.excl = tonumber(arg()), tonumber(arg())
  end
  local added, filtered = 0, 0
  for number = 0, tonumber(arg()) - 1 do
    local slot, score, start, count = arg(), arg(), arg() == '1', tonumber(arg())
    local bits, live = {}, 0
    for i = 1, count do
      local fp = arg()
      if fp == '' or seen_add(fp) then
        bits[i], live = QUEUED, live + 1
      else
        bits[i] = DONE
        dropped[#dropped + 1] = number
        dropped[#dropped + 1] = i - 1
        filtered = filtered + 1
      end
    end
    local data = arg()
    slot_dirty[slot] = true
    if live > 0 then
      M.blob_no = M.blob_no + 1
      blob_add(M.blob_no, start or M.lifo == 0, slot, score, bits, data)
      added = added + live
    end
  end
  if filtered > 0 and ARGV[15] ~= '' then
    redis.call('HINCRBY', P .. 'stats', ARGV[15], filtered)
  end
  M.queued = M.queued + added
  return added
end

local function commit_stats()
  local S = P .. 'stats'
  local full = redis.call('HLEN', S) >= STATS_MAX
  for _ = 1, tonumber(arg()) do
    local kind, key, value = arg(), arg(), arg()
    if full and redis.call('HEXISTS', S, key) == 0 then
      -- Beyond the bound new keys are not kept.
    elseif kind == 'set' then
      redis.call('HSET', S, key, value)
    elseif kind == 'add' then
      local ok = redis.pcall('HINCRBY', S, key, value)
      if type(ok) == 'table' and ok.err then ok = redis.pcall('HINCRBYFLOAT', S, key, value) end
      if type(ok) == 'table' and ok.err then redis.call('HSET', S, key, value) end
    else
      local old = tonumber(redis.call('HGET', S, key) or nil)
      local new = tonumber(value)
      if not old or (kind == 'max' and new > old) or (kind == 'min' and new < old) then
        redis.call('HSET', S, key, value)
      end
    end
  end
end

local function commit_cookies()
  for _ = 1, tonumber(arg()) do
    local key, value = arg(), arg()
    M.cookie_no = M.cookie_no + 1
    redis.call('HSET', P .. 'cookies', key, value)
    redis.call('ZADD', P .. 'cookie_no', M.cookie_no, key)
  end
end

local function commit_outputs()
  M.pages = M.pages + tonumber(ARGV[9])
  M.errors = M.errors + tonumber(ARGV[10])
  local item_count, failure_count = tonumber(ARGV[11]), tonumber(ARGV[13])
  M.items, M.failures = M.items + item_count, M.failures + failure_count
  if item_count > 0 or failure_count > 0 then
    M.out_bytes = M.out_bytes + #ARGV[12] + #ARGV[14]
    redis.call('XADD', P .. 'out', M.commit_no .. '-0', 'nonce', token .. ' ' .. seq,
      'total', M.out_bytes, 'item_count', item_count, 'items', ARGV[12],
      'failure_count', failure_count, 'failures', ARGV[14])
  end
end

