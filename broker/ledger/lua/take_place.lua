-- Before step 4, in the first shard: a grant takes a place under each of its names and counts against
-- the rates, or nothing is taken. A = {id, names: [agent, orchestrator, capability, backend], place,
-- live: [[kind, name, most]], rates: [[count, window_ms]]}; the last #rates keys are the rates'.
-- Places are members of the first shard's index: qp|ID|AGENT|ORCHESTRATOR|CAPABILITY|BACKEND|TAKEN_AT,
-- and ql|KIND|NAME|ID for each name, so that counting those of a name is one look-up.
for i, limit in ipairs(A.live) do
  local used = count('ql|' .. limit[1] .. '|' .. limit[2] .. '|')
  if used >= limit[3] then return { 'live', tostring(i), tostring(used) } end
end
-- GCRA: of a rate, one number is kept: when its bucket will be full again. A millisecond at most takes
-- up the rounding.
local full_at, longest, slowest = {}, 0, 0
for i, rate in ipairs(A.rates) do
  local interval = rate[2] / rate[1]
  local held = tonumber(redis.call('GET', KEYS[#KEYS - #A.rates + i]) or 0)
  full_at[i] = math.max(held, NOW) + interval
  local wait = full_at[i] - NOW - rate[2]
  if wait > math.min(interval / 2, 1) and wait > longest then
    longest, slowest = wait, i
  end
end
if slowest > 0 then return { 'rate', tostring(slowest), tostring(math.ceil(longest)) } end
for i, at in ipairs(full_at) do
  redis.call('SET', KEYS[#KEYS - #A.rates + i], string.format('%.3f', at), 'PX', math.ceil(at - NOW))
end
if A.place then
  local agent, orchestrator, capability, backend = unpack(A.names)
  if #members('qp|' .. A.id .. '|') == 0 then
    index(true, 'qp', A.id, agent, orchestrator, capability, backend, tostring(NOW))
  end
  index(true, 'ql', 'agent', agent, A.id)
  index(true, 'ql', 'orchestrator', orchestrator, A.id)
  index(true, 'ql', 'capability', capability, A.id)
  index(true, 'ql', 'backend', backend, A.id)
end
return { 'ok', tostring(NOW) }
