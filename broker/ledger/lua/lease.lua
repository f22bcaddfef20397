-- Who does some work alone: one at a time, by a lease that runs out. KEYS[9] is `head`, KEYS[10] the lease.
-- A = {field, owner, fence, ttl_ms}; ttl_ms = 0 lets go. The fence is in `field` of `head`; `fence` is the
-- caller's from before, or 0. Returns whether the caller has it, the fence, and how far the log goes.
-- Whoever takes it anew gets a higher fence.
local HEAD, LEASE = KEYS[9], KEYS[10]
local holder = redis.call('GET', LEASE)
local mine = holder == A.owner
if A.ttl_ms == 0 then
  if mine then redis.call('DEL', LEASE) end
elseif mine or not holder then
  local fence = tonumber(redis.call('HGET', HEAD, A.field) or '0')
  -- Its lease ran out, but nobody has had it since: then nothing has changed.
  if fence == 0 or fence ~= A.fence then redis.call('HINCRBY', HEAD, A.field, 1) end
  redis.call('SET', LEASE, A.owner, 'PX', A.ttl_ms)
  mine = true
end
local held = redis.call('HMGET', HEAD, A.field, 'head', 'at')
return { mine and 1 or 0, tonumber(held[1] or '0'), held[2] or '', tonumber(held[3] or '0') }
