-- A job is begun, unless somebody has finished it meanwhile or it has been begun too often.
-- KEYS: the worker's own list, the job, the counts, the list of failed jobs.
-- ARGV: the job's number, the worker, the most attempts.
-- Gives {attempt, payload}; the attempt is 0 if there is nothing to do.
if redis.call('HEXISTS', KEYS[2], 'outcome') == 1 then
  redis.call('LREM', KEYS[1], 1, ARGV[1])
  return {0, 'finished meanwhile'}
end
local attempt = redis.call('HINCRBY', KEYS[2], 'attempts', 1)
if attempt > tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[2], 'outcome', 'failed', 'result', 'given up: it was begun ' .. ARGV[3] .. ' times')
  redis.call('LREM', KEYS[1], 1, ARGV[1])
  redis.call('RPUSH', KEYS[4], ARGV[1])
  redis.call('HINCRBY', KEYS[3], 'given_up', 1)
  return {0, 'given up: it was begun too often'}
end
redis.call('HSET', KEYS[2], 'worker', ARGV[2])
redis.call('HINCRBY', KEYS[3], 'begun', 1)
if attempt > 1 then
  redis.call('HINCRBY', KEYS[3], 'repeated', 1)
end
return {attempt, redis.call('HGET', KEYS[2], 'payload') or ''}
