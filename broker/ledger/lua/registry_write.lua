-- One change of the register of principals. KEYS[9] is the register, in the first shard.
-- A = {version, rows, todo, marks, unused?, events, actor}. `version` is that of the register the
-- change was decided on: if another came between, it is decided again. `rows` are whole, by field.
local held = tonumber(redis.call('HGET', KEYS[9], 'version') or '0')
if held ~= A.version then return 'changed' end
if A.unused and tonumber(redis.call('HGET', KEYS[9], 'u|' .. A.unused.name) or '0') > A.unused.since then
  return 'used'
end
local version = held + 1
redis.call('HSET', KEYS[9], 'version', string.format('%d', version))
for field, row in pairs(A.rows) do redis.call('HSET', KEYS[9], field, row) end
for _, item in ipairs(A.todo) do
  redis.call('HSET', KEYS[9], 't|' .. item, string.format('%d|%d', version, NOW))
end
mark(A.marks, version)
for _, event in ipairs(A.events) do emit(event.type, nil, nil, event.data) end
return 'ok'
