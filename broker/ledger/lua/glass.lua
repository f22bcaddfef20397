-- One glass at a time for each agent, in whatever shard its tasks are. KEYS[9] is the agent's mark. A = {id,
-- ttl_ms}; without ttl_ms it is let go. Answers whose it is now.
local held = redis.call('GET', KEYS[9])
if A.ttl_ms then
  if not held or held == A.id then
    redis.call('SET', KEYS[9], A.id, 'PX', A.ttl_ms)
    held = A.id
  end
elseif held == A.id then
  redis.call('DEL', KEYS[9])
end
return held or ''
