-- A grant was rotated: its successor is delivered, so it ends after an overlap, if it hasn't ended
-- before. A = {id, by, overlap_ms, actor}. It never lives longer by this.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
if grant.state == 'active' and grant.replaced_by == A.by then
  grant.expires_at = math.min(grant.expires_at, NOW + A.overlap_ms)
  save(GRANTS, grant)
  due('g', grant.id, grant.expires_at)
  emit('grant.rotated', grant.task_id, grant.id,
    { capability = grant.capability, replaced_by = A.by, expires_at = grant.expires_at })
end
return { grant.state, text_of(grant) }
