-- The review after a break-glass is closed with findings. A = {task_id, id, findings, actor}.
local task = load(TASKS, A.task_id)
local elevation = task and (task.elevations or {})[A.id]
if not elevation or not elevation.break_glass then return { 'unknown' } end
if elevation.review ~= 'open' then return { 'closed', text_of(task) } end
if not elevation.ended_at then return { 'live', text_of(task) } end
elevation.review = 'closed'
elevation.findings = A.findings
elevation.reviewed_by = A.actor
elevation.reviewed_at = NOW
save(TASKS, task)
local at = string.format('%013d', elevation.started_at)
index(false, 'ro', at, task.id, A.id)
index(true, 'rc', at, task.id, A.id)
emit('review.closed', task.id, nil, { elevation = A.id, capability = elevation.capability,
  agent = task.agent, findings = A.findings }, elevation.decision_id)
return { 'ok', text_of(task) }
