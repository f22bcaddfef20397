-- An event with no state change of its own, such as a refusal. A = {type, task_id?, grant_id?, data,
-- decision_id?, actor}.
emit(A.type, A.task_id, A.grant_id, A.data, A.decision_id)
return 'ok'
