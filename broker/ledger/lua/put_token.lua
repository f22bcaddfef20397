-- A token of ours, in the ledger before it is handed out. A = {row, ttl_ms, actor, event};
-- KEYS[8] the token's own key. A task's token is refused when the task isn't active.
local expires = A.ttl_ms
if A.row.task_id then
  local task = load(TASKS, A.row.task_id)
  if not task or task.state ~= 'active' or task_due(task) <= NOW then return 'task_not_active' end
  expires = math.min(expires, task.expires_at - NOW)
end
redis.call('SET', KEYS[8], cjson.encode(A.row), 'PX', expires)
emit('token.issued', A.row.task_id, A.row.grant_id, A.event)
return 'ok'
