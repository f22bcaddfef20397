-- What reconciling is about to do, or has found. A = {type, task_id?, grant_id?, data, report?, keep_ms?, actor};
-- KEYS[9] is where the last report is kept, given with one.
if A.report then redis.call('SET', KEYS[9], A.report, 'PX', A.keep_ms) end
emit(A.type, A.task_id, A.grant_id, A.data)
return 'ok'
