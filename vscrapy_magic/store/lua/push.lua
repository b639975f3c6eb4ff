-- A user adds requests to a running crawl.
--
-- KEYS: prefix of the crawl. ARGV: ready_per_child, then blobs as in step.lua.
-- Returns: {'ok', requests added, requests queued}, or {'unknown'}, {'over', state, close_reason}: then
--   nothing was written.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include seen
--!include queue
--!include allowed
--!include members
local at = 1
--!include requests
if not meta_load() then return {'unknown'} end
if FINAL[M.state] or M.state == 'closing' or M.state == 'stopping' then
  return {'over', M.state, M.close_reason}
end
local added = requests_add({})
wake_for_added(0)
wake_standby(tonumber(ARGV[1]), now_ms())
blobs_flush()
slots_flush()
meta_flush()
return {'ok', added, M.queued}
