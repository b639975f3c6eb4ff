-- A child in the debugger shows something, or its user types something.
--
-- KEYS: prefix of the crawl.
-- ARGV: number of the halt, kept (entries), then `out` and entries (number, kind, text), or `in` and what was
--   typed.
-- Returns: 1, or 0 when that child does not stand there any more: then nothing was written.
local P = KEYS[1]
if redis.call('HEXISTS', P .. 'halts', ARGV[1]) == 0 then return 0 end
if ARGV[3] == 'in' then
  redis.call('RPUSH', P .. 'halt-in:' .. ARGV[1], ARGV[4])
  redis.call('LTRIM', P .. 'halt-in:' .. ARGV[1], -tonumber(ARGV[2]), -1)
  redis.call('HINCRBY', P .. 'meta', 'typed', 1)
else
  for i = 4, #ARGV, 3 do
    redis.call('XADD', P .. 'halt:' .. ARGV[1], 'MAXLEN', ARGV[2], ARGV[i] .. '-0', 'kind', ARGV[i + 1],
      'text', ARGV[i + 2])
  end
end
return 1
