-- The jobs of a worker whose lease has run out go back to the head of the queue.
-- KEYS: its lease, its own list, the queue, the workers, the counts.
-- ARGV: the worker.
-- Gives the numbers of these jobs; nothing if it has a lease.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {}
end
local jobs = redis.call('LRANGE', KEYS[2], 0, -1)
for i = #jobs, 1, -1 do
  redis.call('LPUSH', KEYS[3], jobs[i])
end
redis.call('DEL', KEYS[2])
redis.call('SREM', KEYS[4], ARGV[1])
if #jobs > 0 then
  redis.call('HINCRBY', KEYS[5], 'returned', #jobs)
end
return jobs
