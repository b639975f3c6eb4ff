-- A full server runs the whole script: it ends or frees something, or says that somebody lives.
--
-- A full server refuses no command of a script that has begun with a removal. Changes nothing.
redis.call('DEL', P .. 'room')
