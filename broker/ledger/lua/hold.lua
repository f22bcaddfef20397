-- One at a time, in whatever shard those are who want it. KEYS[9] is the mark. A = {by, ttl_ms}; without
-- ttl_ms it is let go. Answers whose it is now.
local held = redis.call('GET', KEYS[9])
if A.ttl_ms then
  if not held or held == A.by then
    redis.call('SET', KEYS[9], A.by, 'PX', A.ttl_ms)
    held = A.by
  end
elseif held == A.by then
  redis.call('DEL', KEYS[9])
end
return held or ''
