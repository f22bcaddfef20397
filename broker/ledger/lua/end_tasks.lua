-- End the tasks of some principals in this shard, at most `limit` and what is below them.
-- A = {agents, orchestrators, owners, keep, reason, limit, claim_ms, actor}. `owners` end the tasks
-- opened in their name, but for those of the agents in `keep`, who are another's by now. Answers
-- how many tasks ended, those tasks, then the grants to revoke.
local grants, tasks = {}, {}
local function end_if(member, wanted)
  if #tasks >= A.limit then return end
  local task = load(TASKS, id_of(member))
  if task and not task.ended_at and (not wanted or wanted(task)) then
    end_task(task, 'revoked', A.reason, grants, tasks)
  end
end
local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end
for _, name in ipairs(A.agents) do
  for _, member in ipairs(members('ta|' .. name .. '|')) do end_if(member) end
end
local keep = set_of(A.keep)
for _, owner in ipairs(A.owners) do
  for _, member in ipairs(members('to|' .. owner .. '|')) do
    end_if(member, function(task) return not keep[task.agent] end)
  end
end
if #A.orchestrators > 0 then
  -- Not by `tb`, which keeps the tasks of a week: by all that aren't closed.
  local theirs = set_of(A.orchestrators)
  for _, member in ipairs(members('ta|')) do
    end_if(member, function(task) return theirs[task.orchestrator] end)
  end
end
local out = { tostring(#tasks) }
for _, row in ipairs(tasks) do out[#out + 1] = row end
for _, row in ipairs(grants) do out[#out + 1] = row end
return out
