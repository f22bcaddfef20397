-- A token of ours, in the ledger before it is handed out. A = {row, ttl_ms, actor, event};
-- KEYS[9] the token's own key, KEYS[10..] those of the tokens it is exchanged from. A task's token is
-- refused when the task isn't active, a grant's when that has been ended meanwhile, any when an ancestor has
-- ended or its principal is stopped: none slips past a revocation.
for i = 10, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return 'ancestor_ended' end
end
local expires = A.ttl_ms
local who = { { name = A.row.client_id or '', owner = A.row.owner } }
if A.row.task_id then
  local task = load(TASKS, A.row.task_id)
  if not task or task.state ~= 'active' or task_due(task) <= NOW then return 'task_not_active' end
  local grant = A.row.grant_id and load(GRANTS, A.row.grant_id)
  if A.row.grant_id and not (grant and grant.state == 'pending') then return 'grant_ended' end
  expires = math.min(expires, task.expires_at - NOW)
  people_of(task, who)
end
local field = stopped(who)
if field then
  emit('token.refused', A.row.task_id, A.row.grant_id, { client_id = A.row.client_id, mark = field })
  return field
end
A.row.at = NOW
redis.call('SET', KEYS[9], cjson.encode(A.row), 'PX', expires)
emit('token.issued', A.row.task_id, A.row.grant_id, A.event)
return 'ok'
