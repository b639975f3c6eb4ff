-- A worker lacks what the spider of a crawl needs: it takes no part in it.
--
-- KEYS: prefix of the crawl. ARGV: worker, why.
-- Returns: the names of all such workers; none when the crawl is unknown or over.
local P = KEYS[1]
--!include meta
if not meta_load() or FINAL[M.state] then return {} end
--!include needs_room
redis.call('HSET', P .. 'unfit', ARGV[1], ARGV[2])
return redis.call('HKEYS', P .. 'unfit')
