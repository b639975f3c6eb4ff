-- A sender does not know whether its crawl came to be, and wants it no longer: a create that is still
-- on its way must not bring it any more.
--
-- KEYS: prefix of the crawl. ARGV: for how long such a create may be on its way (ms).
-- Returns: 1 when the crawl is there (it is to be cancelled), 0 when it is not, and cannot come to be.
local P = KEYS[1]
if redis.call('HEXISTS', P .. 'meta', 'spec') == 1 then return 1 end
redis.call('HSET', P .. 'meta', 'state', 'cancelled')
redis.call('PEXPIRE', P .. 'meta', ARGV[1])
return 0
