-- The crawl's own numbers and words: read at once, written back at once.
-- Needs: P (prefix of the crawl).
local META_FIELDS = {
  'state', 'final', 'close_reason', 'why', 'start', 'idle', 'session', 'limited', 'slot_words',
  'halted_at', 'debugs',
  'commit_no', 'epoch', 'control', 'lease_no', 'blob_no', 'cookie_no', 'queued', 'leased', 'again',
  'items', 'pages', 'errors', 'failures', 'level', 'level_count', 'lifo', 'keep_open',
  'limit_items', 'limit_pages', 'limit_errors', 'limit_timeout_ms', 'started_ms', 'idle_after_ms',
  'out_bytes', 'out_acked', 'out_max', 'judged_ms', 'created_ms', 'turn', 'workers',
  'rules', 'rule_no', 'slot_limit', 'slot_excl', 'own_limit', 'called',
  'code_no', 'offer_no', 'offer_last', 'offer_until_ms',
  'limit_no_item_ms', 'limit_no_item_pages', 'item_pages', 'period_ms', 'period_items',
  'halts', 'halt_no', 'no_halts', 'rec_max', 'rec_bytes', 'rec_count', 'rec_left',
}
local META_WORDS = 11 -- so many of them are words, the others numbers
local FINAL = {finished = 1, stopped = 1, failed = 1, cancelled = 1, lost = 1, store_rolled_back = 1}
local M, M_was = {}, {}

local function meta_load()
  local raw = redis.call('HMGET', P .. 'meta', unpack(META_FIELDS))
  if not raw[1] then return false end
  for i, name in ipairs(META_FIELDS) do
    local value = raw[i] or ''
    if i > META_WORDS then value = tonumber(value) or 0 end
    M[name], M_was[name] = value, value
  end
  if M.code_no == 0 then M.code_no, M_was.code_no = 1, 1 end -- what was ordered
  return true
end

local function meta_flush()
  local changed = {}
  for _, name in ipairs(META_FIELDS) do
    if M[name] ~= M_was[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = M[name]
    end
  end
  if #changed > 0 then redis.call('HSET', P .. 'meta', unpack(changed)) end
end
