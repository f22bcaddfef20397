-- A ledger that was set back, or isn't any more. A = {on, seen_ms?, record?, event?, actor}. It stands in every shard; its
-- event in one. What stands stays as it is.
if quarantined() == A.on then return 'same' end
-- Whoever ended the last one knew of what was seen before.
if A.seen_ms and tonumber(redis.call('HGET', FROZEN, RELEASED) or '0') > A.seen_ms then return 'late' end
if A.on then
  redis.call('HSET', FROZEN, QUARANTINE, A.record)
else
  redis.call('HDEL', FROZEN, QUARANTINE)
  redis.call('HSET', FROZEN, RELEASED, NOW)
end
if A.event then emit(A.on and 'quarantine.set' or 'quarantine.released', nil, nil, A.event) end
return 'ok'
