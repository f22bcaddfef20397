-- A change of the register has reached every shard and every task. KEYS[9] the register.
-- A = {item, version}. A later change of the same item is still to be done.
local held = redis.call('HGET', KEYS[9], 't|' .. A.item)
if held and tonumber(string.match(held, '^%d+')) == A.version then
  redis.call('HDEL', KEYS[9], 't|' .. A.item)
end
return 'ok'
