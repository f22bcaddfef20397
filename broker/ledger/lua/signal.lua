-- What was reported about a selector. A = {field, how, task_id?, actor}. The shard that is asked first
-- decides and logs, the others take what it has decided; a later version is never undone.
--   set       A.risk, A.verdict, A.reason, A.ttl_ms?, A.only_raise: what stands isn't made less of it
--   clear     A.reason
--   copy      A.record, as the first shard has it
--   settled   A.version: it has reached every shard and every live grant
local key = 'signal:' .. A.field
local text = redis.call('HGET', FROZEN, key)
local held = text and cjson.decode(text)
local stands = held and not held.gone and not (held.until_ms and held.until_ms <= NOW)

local function write(record)
  local row = cjson.encode(record)
  redis.call('HSET', FROZEN, key, row)
  -- Decisions that are under way are made again; as with chains, never a number from before.
  local before = tonumber(redis.call('HGET', FROZEN, 'signal#') or '0')
  redis.call('HSET', FROZEN, 'signal#', string.format('%.0f', math.max(NOW, before + 1)))
  index(true, 'sg', A.field)
  index(record.open, 'so', A.field)
  return row
end

if A.how == 'copy' then
  if not held or held.version < A.record.version then write(A.record) end
  return { 'ok', '' }
end
if A.how == 'settled' then
  if held and held.version == A.version and held.open then
    held.open = nil
    redis.call('HSET', FROZEN, key, cjson.encode(held))
    index(false, 'so', A.field)
  end
  return { 'ok', '' }
end
if A.task_id and redis.call('HEXISTS', TASKS, A.task_id) == 0 then return { 'unknown', '' } end

local record = { risk = 0, verdict = 'clean', reason = A.reason, by = A.actor, at = NOW, open = true,
  version = math.max(NOW, held and held.version + 1 or 0) }
if A.how == 'clear' then
  if not stands then return { 'unknown', '' } end
  -- Kept for a while, so that what another replica has on its way isn't taken for news.
  record.gone = true
  record.until_ms = NOW + 3600000
  emit('signal.cleared', A.task_id, nil, { selector = A.field, reason = A.reason })
  return { 'ok', write(record) }
end
record.risk, record.verdict = A.risk, A.verdict
record.until_ms = A.ttl_ms and NOW + A.ttl_ms
if A.only_raise and stands then
  local more = A.risk > held.risk or VERDICTS[A.verdict] > VERDICTS[held.verdict]
  local less = A.risk < held.risk or VERDICTS[A.verdict] < VERDICTS[held.verdict]
  if less and not more then return { 'lowers', '' } end
  record.risk = math.max(A.risk, held.risk)
  if VERDICTS[held.verdict] > VERDICTS[A.verdict] then record.verdict = held.verdict end
  record.until_ms = record.until_ms and held.until_ms and math.max(record.until_ms, held.until_ms)
end
emit('signal.set', A.task_id, nil, { selector = A.field, reason = A.reason, risk = record.risk,
  verdict = record.verdict, expires_at = record.until_ms })
return { 'ok', write(record) }
