-- Everything below an ended task is confirmed dead. A = {id, retain_ms, actor}.
local task = load(TASKS, A.id)
if not task then return 'unknown' end
if task.closed_at then return 'closed' end
if not task.ended_at then return 'active' end
if count('gt|' .. task.id .. '|') > 0 or next(task.handles or {}) then return 'draining' end
task.closed_at = NOW
save(TASKS, task)
redis.call('ZREM', DUE, 't|' .. task.id)
redis.call('ZADD', PURGE, NOW + A.retain_ms, 't|' .. task.id)
index(false, 'ta', task.agent, stamp(task))
index(false, 'to', task.owner, stamp(task))
emit('task.closed', task.id, nil, { time_to_dead_ms = NOW - task.ended_at })
return 'closed'
