-- Ends leases in success. A lease that is not the living one changes nothing and is answered with 0.
-- @include core place queue settle summon
-- @arg now
-- @args field fence cost service_ms
-- @reply tokens settled...
-- @keys m src bkt r x d z w q0 q1 q2 c bs dl dlk dlz wake wt inv
local now = begin(ARGV[1])
local fields, owners = named_leases(4)
local answer = {}
for i, field in ipairs(fields) do
  local n, at = owners[i], i * 4 - 2
  local s, r = sources[n], held(field, tonumber(ARGV[at + 1]))
  if s and r then
    local service = tonumber(ARGV[at + 3])
    end_lease(n, s, r, service, tonumber(ARGV[at + 2]), now)
    learn(s, service)
    s[S_ACKED] = s[S_ACKED] + 1
    if s[S_DEAD] > 0 then forget_dead_letter(s, field) end
    local ends = r[X_CLAIMED] + s[S_WINDOW]
    if r[X_DIRTY] ~= 0 then
      s[S_RERUNS] = s[S_RERUNS] + 1
      become_newer(r)
      make_pending(n, s, field, r, r[R_LANE] == MANUAL and now or ends, now)
    elseif ends > now then
      make_cooling(field, r, ends)
    else
      drop(field)
    end
    answer[i + 1] = 1
  else
    if r and not s then
      drop(field)
    end
    answer[i + 1] = 0
  end
end
local look_again = flush(now)
answer[1] = summon(now, look_again)
return answer
