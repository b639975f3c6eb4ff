-- New requests as a step or a push carries them.
-- Needs: meta.lua, slots.lua, seen.lua, queue.lua; `at`, the place in ARGV before the next argument.
local function arg()
  at = at + 1
  return ARGV[at]
end

-- Reads blobs from ARGV (their number, then slot, score, start, count, fingerprint or '' each, data)
-- and queues them. Returns how many requests are new and how many are not; places of the latter go to
-- `dropped` (blob, index, ...).
local function requests_add(dropped)
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
    slot_get(slot)
    slot_dirty[slot] = true
    if live > 0 then
      M.blob_no = M.blob_no + 1
      blob_add(M.blob_no, start or M.lifo == 0, slot, score, bits, data)
      added = added + live
      slots_added[slot] = (slots_added[slot] or 0) + live
    end
  end
  M.queued = M.queued + added
  if added > 0 and M.idle == 'done' then M.idle = '' end
  return added, filtered
end
