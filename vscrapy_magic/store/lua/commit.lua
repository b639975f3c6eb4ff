-- The committing half of a step.
-- Needs: all that step.lua includes before it; token, seq, now, keep_open, HELD, dropped.
local STATS_MAX = 10000 -- stats keys of a crawl
-- What a child has counted for a request before it is known here to be a duplicate.
local COUNTED_BEFORE = {'scheduler/enqueued', 'scheduler/enqueued/memory'}

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
      -- Requests may have been pushed meanwhile: then somebody is to be asked once more.
      M.idle = M.queued > 0 and '' or 'done'
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

-- What an older setting says of slots counts no more once a newer one was told.
local function commit_limits()
  local valid = tonumber(ARGV[18]) >= M.rules
  for _ = 1, tonumber(arg()) do
    local slot, limit, excl, words = arg(), tonumber(arg()), tonumber(arg()), arg()
    if valid then slot_told(slot, limit, excl, words) end
  end
end

local function commit_requests()
  local added, filtered = requests_add(dropped)
  if filtered > 0 and ARGV[15] ~= '' then
    redis.call('HINCRBY', P .. 'stats', ARGV[15], filtered)
    for _, key in ipairs(COUNTED_BEFORE) do redis.call('HINCRBY', P .. 'stats', key, -filtered) end
  end
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
      if type(ok) == 'table' and ok.err then
        ok = redis.pcall('HINCRBYFLOAT', S, key, value)
        -- As in Python, a sum with a fraction in it stays a float when it comes out even.
        if type(ok) == 'string' and string.match(ok, '^-?%d+$') then
          redis.call('HSET', S, key, ok .. '.0')
        end
      end
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

-- Recorded pages that are kept, of a step; once they were too many for what is left, none is.
local function commit_records()
  local count, left = tonumber(ARGV[19]), tonumber(ARGV[21])
  if count > 0 and M.rec_bytes + #ARGV[20] > M.rec_max then
    M.rec_bytes, left, count = M.rec_max, left + count, 0
  elseif count > 0 then
    M.rec_bytes = M.rec_bytes + #ARGV[20]
  end
  M.rec_count, M.rec_left = M.rec_count + count, M.rec_left + left
  return count
end

local function commit_outputs()
  M.pages = M.pages + tonumber(ARGV[9])
  M.errors = M.errors + tonumber(ARGV[10])
  local item_count, failure_count = tonumber(ARGV[11]), tonumber(ARGV[13])
  M.items, M.failures = M.items + item_count, M.failures + failure_count
  if item_count > 0 then M.item_pages = M.pages end
  local record_count = commit_records()
  if item_count > 0 or failure_count > 0 or record_count > 0 then
    local records = record_count > 0 and ARGV[20] or ''
    M.out_bytes = M.out_bytes + #ARGV[12] + #ARGV[14] + #records
    local entry = {'nonce', token .. ' ' .. seq, 'total', M.out_bytes, 'item_count', item_count,
      'items', ARGV[12], 'failure_count', failure_count, 'failures', ARGV[14]}
    if tonumber(ARGV[16]) > 1 then
      entry[#entry + 1], entry[#entry + 2] = 'code', ARGV[16]
    end
    -- Also when there are none: a worker that is older than this does not say so.
    if M.rec_max > 0 then
      for _, v in ipairs({'record_count', record_count, 'records', records}) do
        entry[#entry + 1] = v
      end
    end
    redis.call('XADD', P .. 'out', M.commit_no .. '-0', unpack(entry))
  end
end
