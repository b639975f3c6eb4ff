-- Somebody moves a crawl to another state; which moves exist stands in crawls.py.
--
-- KEYS: prefix of the crawl. ARGV: to, final (where `stopping` and `closing` lead; may be empty),
--   close_reason, why, then the states from which this move is allowed.
-- Returns: {'ok', old state, new state}, {'refused', state}, or {'unknown'}.
local P = KEYS[1]
--!include clock
--!include meta
--!include slots
--!include queue
--!include allowed
--!include members
if not meta_load() then return {'unknown'} end
--!include frees_room
local now, old, allowed = now_ms(), M.state, false
for i = 5, #ARGV do allowed = allowed or ARGV[i] == old end
if not allowed then return {'refused', old} end
if ARGV[2] ~= '' then M.final = ARGV[2] end
if ARGV[3] ~= '' then M.close_reason = ARGV[3] end
M.why = ARGV[4]
set_state(ARGV[1], now)
settle(now)
meta_flush()
return {'ok', old, M.state}
