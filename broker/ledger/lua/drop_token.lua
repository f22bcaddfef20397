-- KEYS[8] the token's key. A = {event?, task_id?, grant_id?, actor}.
local gone = redis.call('DEL', KEYS[8])
if gone == 1 and A.event then emit('token.revoked', A.task_id, A.grant_id, A.event) end
return gone
