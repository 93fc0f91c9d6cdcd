-- Ends the lease of a scan that was cut: the rest of its pass is due at once, behind what waits in its lane, which is that of
-- `signal` unless something newer was told. `caught_up`: what was told before this claim needs nothing any more.
-- @include core place queue settle summon
-- @arg now field fence cost service_ms signal caught_up
-- @reply tokens settled
-- @keys m n src bkt r x d z w q0 q1 q2 bs wake wt inv
local now = begin(ARGV[1])
local field = ARGV[2]
local n = load_all({ field })[1]
local s, r = sources[n], held(field, tonumber(ARGV[3]))
if not s or not r then
  if r then drop(field) end
  flush(now) -- also the time, as every other word about a lease does
  return { {}, 0 }
end
local service, signal = tonumber(ARGV[5]), tonumber(ARGV[6])
end_lease(n, s, r, service, tonumber(ARGV[4]), now)
learn(s, service)
s[S_ACKED] = s[S_ACKED] + 1
if ARGV[7] == '1' then r[R_FLAGS] = r[R_FLAGS] % NEWER end
r[R_FLAGS] = flags_of_rest(r, 0)
if r[X_DIRTY] == 0 or LANE[signal] > r[R_LANE] then -- as in `merge`: a lesser lane's signal does not hide the better one's
  local _, _, observed = unpack_at(P_FORMAT, r[R_PAYLOAD])
  r[R_LANE], r[R_PAYLOAD] = LANE[signal], scan_payload(signal, observed)
end
r[R_ATTEMPTS] = 0
make_ready(n, field, r)
local look_again = flush(now)
return { summon(now, look_again), 1 }
