-- What was reported about a selector. A = {field, record?, event?, actor}; without a record it is
-- taken back. It stands in every shard, its event in one.
if A.record then
  redis.call('HSET', FROZEN, 'signal:' .. A.field, A.record)
else
  redis.call('HDEL', FROZEN, 'signal:' .. A.field)
end
redis.call('HINCRBY', FROZEN, 'signal#', 1)
if A.event then emit('signal', A.task_id, nil, A.event) end
return 'ok'
