-- Who got a token lately, which principals of the configuration are new here, and which agent was
-- allowed, or used, which capability (AGENT|CAPABILITY). KEYS[9] the register. A = {used, seen, uses,
-- allowed, gone}. No change of state, so no event, and the version stays.
local at = string.format('%d', NOW)
for _, name in ipairs(A.used) do redis.call('HSET', KEYS[9], 'u|' .. name, at) end
for _, name in ipairs(A.seen) do redis.call('HSETNX', KEYS[9], 's|' .. name, at) end
for _, pair in ipairs(A.uses) do redis.call('HSET', KEYS[9], 'c|' .. pair, at) end
for _, pair in ipairs(A.allowed) do redis.call('HSETNX', KEYS[9], 'a|' .. pair, at) end
for _, pair in ipairs(A.gone) do redis.call('HDEL', KEYS[9], 'a|' .. pair) end
redis.call('HSETNX', KEYS[9], 'recorded', at) -- from when on no use of a capability is missing
return 'ok'
