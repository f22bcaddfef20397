-- Who got a token lately, and which principals of the configuration are new here. KEYS[8] the
-- register. A = {used, seen}. No change of state, so no event, and the version stays.
for _, name in ipairs(A.used) do
  redis.call('HSET', KEYS[8], 'u|' .. name, string.format('%d', NOW))
end
for _, name in ipairs(A.seen) do
  redis.call('HSETNX', KEYS[8], 's|' .. name, string.format('%d', NOW))
end
return 'ok'
