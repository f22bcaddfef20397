-- Somebody ends an elevation. A = {task_id, id, reason, claim_ms, actor}. Answers the task, then the grants
-- to revoke; ended before, those that aren't dead yet.
local task = load(TASKS, A.task_id)
local elevation = task and (task.elevations or {})[A.id]
if not elevation then return { 'unknown' } end
local grants = {}
if not elevation.ended_at then
  end_elevation(task, A.id, A.reason)
  changed_chain(task)
  save(TASKS, task)
  due('e', task.id .. '|' .. A.id, NOW + A.claim_ms)
end
revoke_elevated(task, A.id, A.reason, grants)
local out = { 'ok', text_of(task) }
for _, row in ipairs(grants) do out[#out + 1] = row end
return out
