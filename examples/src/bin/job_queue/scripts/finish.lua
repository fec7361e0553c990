-- The outcome of a job is set once, by whoever is first.
-- KEYS: the worker's own list, the job, the counts, the list of failed jobs, the queue.
-- ARGV: the job's number, the worker, the outcome (done or failed), the result.
-- Gives 1 if this was the first outcome, 0 if the job had one.
redis.call('LREM', KEYS[1], 1, ARGV[1])
if redis.call('HSETNX', KEYS[2], 'outcome', ARGV[3]) == 0 then
  redis.call('HINCRBY', KEYS[3], 'finished_again', 1)
  return 0
end
redis.call('HSET', KEYS[2], 'result', ARGV[4], 'worker', ARGV[2])
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
-- Whoever was taken for dead in the middle of it finds it in the queue again.
redis.call('LREM', KEYS[5], 0, ARGV[1])
if ARGV[3] == 'failed' then
  redis.call('RPUSH', KEYS[4], ARGV[1])
end
return 1
