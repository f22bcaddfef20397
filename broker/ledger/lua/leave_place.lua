-- Grants that are dead, or came to nothing, leave their places. A = {ids, older_ms?, rates: [[count,
-- window_ms]]}: with older_ms only what was taken longer ago, since what is younger may be about to be
-- reserved; the rates, whose keys are the last, get back what was counted. Answers how many went.
local gone = 0
for _, id in ipairs(A.ids) do
  for _, member in ipairs(members('qp|' .. id .. '|')) do
    local agent, orchestrator, capability, backend, at =
      string.match(member, '^qp|[^|]+|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(%d+)$')
    if at and (not A.older_ms or NOW - tonumber(at) > A.older_ms) then
      redis.call('ZREM', INDEX, member)
      index(false, 'ql', 'agent', agent, id)
      index(false, 'ql', 'orchestrator', orchestrator, id)
      index(false, 'ql', 'capability', capability, id)
      index(false, 'ql', 'backend', backend, id)
      gone = gone + 1
    end
  end
end
for i, rate in ipairs(A.rates) do
  local key = KEYS[#KEYS - #A.rates + i]
  local held = redis.call('GET', key)
  if held then
    local at = tonumber(held) - rate[2] / rate[1]
    if at > NOW then
      redis.call('SET', key, string.format('%.3f', at), 'PX', math.ceil(at - NOW))
    else
      redis.call('DEL', key)
    end
  end
end
return gone
