-- Whether a token is alive: itself, those it was exchanged from, their grants, its task, and
-- nobody it hangs from is stopped. KEYS[9] the token's key, KEYS[10..] its ancestors'. Reads only.
-- A = {asker?}: one who is stopped is told of none. Answers the token's row and, for a
-- task's token, the task.
local text, row = nil, nil
local who = { A.asker and { name = A.asker } }
for i = #KEYS, 9, -1 do
  text = redis.call('GET', KEYS[i])
  if not text then return {} end
  row = cjson.decode(text)
  who[#who + 1] = { name = row.client_id or '', owner = row.owner, at = row.at or 0 }
  if row.grant_id then
    local grant = load(GRANTS, row.grant_id)
    if not grant or grant.state ~= 'active' or grant.expires_at <= NOW then return {} end
  end
end
local task = nil
if row.task_id then
  task = load(TASKS, row.task_id)
  if not task or task.state ~= 'active' or task_due(task) <= NOW then return {} end
  people_of(task, who)
end
if stopped(who) then return {} end
return { text, task and text_of(task) or '' }
