-- What reconciling is about to do, or has found. A = {type, task_id?, grant_id?, data, report?, keep_ms?, field?,
-- fence?, actor}. KEYS[9] is where the last report is kept, given with one, and KEYS[10] is `head`. With a fence
-- (in `field`) it is refused once another has come after.
if A.fence and tonumber(redis.call('HGET', KEYS[10], A.field) or '0') ~= A.fence then return 'fenced' end
if A.report then redis.call('SET', KEYS[9], A.report, 'PX', A.keep_ms) end
emit(A.type, A.task_id, A.grant_id, A.data)
return 'ok'
