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
-- Every supervisor judges the members of its crawls each second. If nobody has for so long, none is
-- left: members are as they were when it died, and nobody would finish what they hold.
local DESERTED_MS = 12000

if not meta_load() then return {'unknown'} end
--!include frees_room
local now, old, allowed = now_ms(), M.state, false
for i = 5, #ARGV do allowed = allowed or ARGV[i] == old end
if not allowed then return {'refused', old} end
if ARGV[2] ~= '' then M.final = ARGV[2] end
if ARGV[3] ~= '' then M.close_reason = ARGV[3] end
M.why = ARGV[4]
local to = ARGV[1]
if to == 'stopping' and now - M.judged_ms > DESERTED_MS then to = M.final end
set_state(to, now)
settle(now)
-- Workers whose children take part hear of it, or are just being started; no others need to.
if M.state ~= old then
  for _, token in ipairs(redis.call('ZRANGE', P .. 'members', 0, -1)) do
    local worker = redis.call('HGET', P .. 'm:' .. token, 'worker')
    if worker and redis.call('ZSCORE', 'vscrapy:workers:due', worker) then wake_worker(worker) end
  end
  for _, token in ipairs(redis.call('ZRANGE', P .. 'claims', 0, -1)) do
    local worker = string.match(token, '^([^=].*)%.%x+$')
    if worker then wake_worker(worker) end
  end
end
meta_flush()
return {'ok', old, M.state}
