-- Stores change signals. Either all of them are stored or, when a number is not one of this epoch, none.
-- @include core place queue summon
-- @arg now epoch
-- @args field payload
-- @reply ok accepted merged deferred overflowed tokens
-- @reply stale
-- @keys m n src bkt r d x z w q0 q1 q2 bs wake wt inv
local now = begin(ARGV[1])
if tonumber(ARGV[2]) ~= m[M_EPOCH] then return { 'stale' } end
local fields, owners = {}, {}
for i = 3, #ARGV, 2 do
  local field = ARGV[i]
  fields[#fields + 1] = field
  owners[#owners + 1] = owner(field)
end
fetch('n', owners, counts, decode_counts)
for i = 1, #owners do
  if not counts[owners[i]] then return { 'stale' } end
end
load_records(fields)

-- What nearly every signal is: the first of an object that the bus knows nothing of. Such records are the same but for
-- the payload and are made without going through `accept`; where a source has more to do already, its place does not
-- change, so that only its counts are read and written.
local heads = {}
for lane = BACKFILL, MANUAL do heads[lane] = pack(RT_FORMAT, READY, lane, 0, 0, 0, now) end
local fresh, fast, answers, woken = {}, 0, { 0, 0, 0, 0 }, {}
for i = 1, #fields do
  local field, n, payload = fields[i], owners[i], ARGV[i * 2 + 2]
  local known, q, lane = records[field], counts[n], LANE[byte(payload, P_SIGNAL)]
  if known == false and lane ~= MANUAL and pending_of(q) < q[N_MAX_PENDING] then
    local encoded = heads[lane] .. payload
    fresh[fast + 1], fresh[fast + 2] = field, encoded
    fast = fast + 2
    records[field] = encoded
    if q[N_N0] + q[N_N1] + q[N_N2] == 0 then woken[#woken + 1] = n end
    q[COUNT[lane]], q[N_ACCEPTED] = q[COUNT[lane]] + 1, q[N_ACCEPTED] + 1
    touch_counts(n, q)
    push(lane_key(lane, n), field)
  elseif type(known) == 'string' and byte(known) == READY and byte(known, R_LANE) >= lane and byte(known, R_FLAGS) < BEGUN and sub(known, R_BYTES + T_BYTES + 1) == payload then
    count_accept(n, MERGED) -- the same signal again, of which a storm consists: there is nothing to write
    answers[MERGED] = answers[MERGED] + 1
  else
    local r = record(field)
    local answer = accept(n, source(n), field, payload, now)
    if not (r and r[R_STATE] == READY and lane ~= MANUAL) then touch(n) end
    answers[answer] = answers[answer] + 1
    count_accept(n, answer)
  end
end
load_sources(woken)
for i = 1, #woken do touch(woken[i]) end
send('HSET', 'r', fresh)
local look_again = flush(now)
return { 'ok', answers[ACCEPTED] + fast / 2, answers[MERGED], answers[DEFERRED], answers[OVERFLOWED], summon(now, look_again) }
