-- The log goes this far now. KEYS[9] is the commit point, KEYS[10] the lease, which is renewed.
-- A = {owner, fence, ttl_ms, head, cursor, at}. Refused for whom another has come after: in a ledger that was lost, with
-- the same fence.
local holder = redis.call('GET', KEYS[10])
if tonumber(redis.call('HGET', KEYS[9], 'fence') or '0') ~= A.fence or holder and holder ~= A.owner then return 'fenced' end
redis.call('HSET', KEYS[9], 'head', A.head, 'cursor', A.cursor, 'at', string.format('%.0f', A.at))
redis.call('SET', KEYS[10], A.owner, 'PX', A.ttl_ms)
return 'ok'
