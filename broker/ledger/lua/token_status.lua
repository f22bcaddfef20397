-- Whether a token is alive: itself, its task and its grant. KEYS[8] the token's key. Reads only.
-- Answers the token's row and, for a task's token, the task.
local text = redis.call('GET', KEYS[8])
if not text then return {} end
local row = cjson.decode(text)
local task = nil
if row.task_id then
  task = load(TASKS, row.task_id)
  if not task or task.state ~= 'active' or task_due(task) <= NOW then return {} end
end
if row.grant_id then
  local grant = load(GRANTS, row.grant_id)
  if not grant or (grant.state ~= 'active' and not (A.minting and grant.state == 'pending')) then
    return {}
  end
  if grant.expires_at <= NOW then return {} end
end
return { text, task and text_of(task) or '' }
