-- A = {field, on, record?, event?, selector, actor}. A freeze stands in every shard; its event in one.
if A.on then
  redis.call('HSET', FROZEN, A.field, A.record)
else
  redis.call('HDEL', FROZEN, A.field)
end
if A.event then emit(A.on and 'freeze.set' or 'freeze.cleared', nil, nil, A.event) end
return 'ok'
