-- Budgets: a task's row has what it was given, for itself and all below it, by kind: given, spent and
-- reserved, as text since cjson writes 14 digits. `accounts` says whose budget a task draws on: its
-- own, or the nearest above that has one; `sources` whose its own was reserved in.
local BUDGETED = { 'grants', 'calls', 'amount' }
local function left_of(account, kind)
  local row = account.budget[kind]
  return tonumber(row.given) - (tonumber(row.spent) or 0) - (tonumber(row.reserved) or 0)
end

local function count_in(account, kind, field, much)
  local row = account.budget[kind]
  row[field] = string.format('%.0f', (tonumber(row[field]) or 0) + much)
end

-- The row that a kind is drawn from, or nil. `rows` are those at hand: two copies would lose a change.
local function account_of(task, kind, rows)
  local id = task.accounts and task.accounts[kind]
  if not id then return nil end
  rows[id] = rows[id] or load(TASKS, id)
  return rows[id]
end

local function lefts(task)
  local rows, found = { [task.id] = task }, {}
  for _, kind in ipairs(BUDGETED) do
    local account = account_of(task, kind, rows)
    if account then found[kind] = string.format('%.0f', left_of(account, kind)) end
    if not account and task.accounts[kind] then found[kind] = '0' end
  end
  return found
end

-- The kind of which a task has too little left for a step, or nil.
local function short_of(task, step)
  if not task.accounts or not step then return nil end
  local left = lefts(task)
  for _, kind in ipairs(BUDGETED) do
    if left[kind] and (step[kind] or 0) > tonumber(left[kind]) then return kind end
  end
  return nil
end

-- The caller saves the task itself.
charge = function(task, step)
  local rows = { [task.id] = task }
  for _, kind in ipairs(BUDGETED) do
    local much = step[kind] or 0
    local account = much > 0 and account_of(task, kind, rows)
    if account then
      count_in(account, kind, 'spent', much)
      if account ~= task then save(TASKS, account) end
    end
  end
end

-- A new task's budget is reserved where it would be drawn from otherwise; `rows` has those rows that
-- the caller saves. Answers the kind of which too little is left, and then has changed nothing.
local function endow(task, parent, rows)
  local accounts, sources = {}, {}
  for _, kind in ipairs(BUDGETED) do
    local own = task.budget and task.budget[kind]
    local above = parent and account_of(parent, kind, rows)
    if own and above and tonumber(own.given) > left_of(above, kind) then return kind end
    if own and above then sources[kind] = above.id end
    accounts[kind] = own and task.id or above and above.id
  end
  for kind, id in pairs(sources) do
    count_in(rows[id], kind, 'reserved', tonumber(task.budget[kind].given))
    save(TASKS, rows[id])
  end
  task.accounts = next(accounts) and accounts
  task.sources = next(sources) and sources
  return nil
end

-- A task has ended, and all below it: what it didn't spend goes back, unless it was to keep it.
settle = function(id)
  local task = load(TASKS, id)
  local rows, data = {}, {}
  for kind, source in pairs(task.sources) do
    rows[source] = rows[source] or load(TASKS, source)
    local account, given = rows[source], task.budget[kind].given
    local left = task.keep_budget and 0 or left_of(task, kind)
    if account then -- an end is never held up by what should be there
      count_in(account, kind, 'reserved', -tonumber(given))
      count_in(account, kind, 'spent', tonumber(given) - left)
      save(TASKS, account)
    end
    data[kind] = { source = source, given = given, returned = string.format('%.0f', left) }
  end
  emit('budget.settled', id, nil, data)
end
