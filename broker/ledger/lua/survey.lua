-- What policy is to know of a task, or of one that is still to be opened below `id`, or of a root:
-- then there is no id. A = {id?, names}. Reads only. Answers the task's row, its chain, its growth,
-- what was reported, and what is left of the budgets it draws on.
local task = A.id and load(TASKS, A.id)
local root = task and root_row(task)
local left = task and task.accounts and cjson.encode(lefts(task)) or ''
local chain = root and root.chain
return { task and text_of(task) or '', chain and cjson.encode(chain) or '', growth_of(root),
  cjson.encode(signals_on(task, A.names)), left }
