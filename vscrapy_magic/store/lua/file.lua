-- One piece of a file that a child wrote, on its way to the sender; or that all pieces have come.
--
-- KEYS: prefix of the crawl.
-- ARGV: token of the child; `begin` (files will come), `put` or `done` (all have come); retention_ms;
--   of a put: path, number of the piece (from 0), size of the whole file, its data, and the bounds:
--   files, bytes.
-- Returns: {'ok'}, {'full'} (this file goes beyond a bound; nothing was written), or {'unknown'}.
--
-- Fields: `w:<token>` files of this child are on their way; `n`, `b` files and bytes so far;
--   `f:<token>\0<path>:<piece>` data.
local P = KEYS[1]
--!include meta
local token, what = ARGV[1], ARGV[2]
if not meta_load() then return {'unknown'} end
if what == 'begin' then
  redis.call('HSET', P .. 'files', 'w:' .. token, 1)
elseif what == 'done' then
  redis.call('HDEL', P .. 'files', 'w:' .. token)
else
  local field = 'f:' .. token .. '\0' .. ARGV[4] .. ':' .. ARGV[5]
  if ARGV[5] == '0' and redis.call('HEXISTS', P .. 'files', field) == 0 then
    local sums = redis.call('HMGET', P .. 'files', 'n', 'b')
    local count, bytes = tonumber(sums[1] or 0) + 1, tonumber(sums[2] or 0) + tonumber(ARGV[6])
    if count > tonumber(ARGV[8]) or bytes > tonumber(ARGV[9]) then return {'full'} end
    redis.call('HSET', P .. 'files', 'n', count, 'b', bytes)
  end
  redis.call('HSET', P .. 'files', field, ARGV[7])
end
-- The sweep of a crawl that is over may have been before this.
if FINAL[M.state] then redis.call('PEXPIRE', P .. 'files', ARGV[3]) end
return {'ok'}
