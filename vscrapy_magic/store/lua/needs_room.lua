-- A full server refuses the whole script here, before anything is written.
--
-- It refuses no command but a first one that could enlarge it: a script that began with a removal
-- would go on, and a crawl would grow beyond the memory that the server may use. Changes nothing.
redis.call('SETRANGE', P .. 'room', 0, '')
