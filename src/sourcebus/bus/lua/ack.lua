-- Ends leases in success. A lease that is not the living one changes nothing and is answered with 0.
-- @include core place queue settle summon
-- @arg now
-- @args field settlement
-- @reply tokens settled...
-- @keys m n src bkt r x d z w q0 q1 q2 c bs dl dlk dlz wake wt inv
local now = begin(ARGV[1])
local fields, owners = named_objects(2, 2)
local answer = {}
-- Nearly every lease ends with nothing new to do; its record is then replaced without being taken apart.
local settled, unleased, done = {}, {}, 0
local n, s, b
for i = 1, #fields do
  local field, raw = fields[i], records[fields[i]]
  local fence, cost, service = unpack_at('<ddd', ARGV[i * 2 + 1])
  if owners[i] ~= n then
    n = owners[i]
    s = sources[n]
    b = s and bucket(bucket_id(n, s))
  end
  local state, at, claimed, est, charged, dirty, _
  if raw and type(raw) == 'string' and byte(raw) == IN_FLIGHT then
    state, _, _, _, at, claimed, est, charged, dirty = unpack_at(RX_FORMAT, raw)
  end
  if at == fence and s then
    if not s[S_TOUCHED] then touch(n) end
    free_slot(s, b, claimed, est, charged, service, cost, now)
    learn(s, service)
    s[S_ACKED] = s[S_ACKED] + 1
    if s[S_DEAD] > 0 then forget_dead_letter(s, field) end
    local ends = claimed + s[S_WINDOW]
    if dirty == 0 and ends > now then
      local list, encoded = cooling_until(ends)
      settled[done * 2 + 1], settled[done * 2 + 2] = field, encoded
      done = done + 1
      unleased[done] = field
      records[field] = encoded
      push(list, field)
    elseif dirty == 0 then
      drop(field)
    else
      local c, r = cold(n, s), record(field)
      c[C_RERUNS] = c[C_RERUNS] + 1
      become_newer(r)
      make_pending(n, s, field, r, r[R_LANE] == MANUAL and now or ends, now)
    end
    answer[i + 1] = 1
  else
    if state and not s then drop(field) end
    answer[i + 1] = 0
  end
end
send('HSET', 'r', settled)
send('ZREM', 'x', unleased)
local look_again = flush(now)
answer[1] = summon(now, look_again)
return answer
