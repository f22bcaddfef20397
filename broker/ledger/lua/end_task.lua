-- A = {id, state, reason, summary?, claim_ms, actor}. Answers the task's state, how many tasks
-- ended, then those tasks, then the grants to revoke.
local task = load(TASKS, A.id)
if not task then return { 'unknown' } end
local grants, tasks = {}, {}
end_task(task, A.state, A.reason, grants, tasks)
local out = { task.state, tostring(#tasks) }
for _, row in ipairs(tasks) do out[#out + 1] = row end
for _, row in ipairs(grants) do out[#out + 1] = row end
return out
