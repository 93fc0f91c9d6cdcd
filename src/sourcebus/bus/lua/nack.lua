-- Ends leases without success. `how`: failed (back off, or dead letter after the last attempt), hopeless (dead letter at
-- once), throttled (the bucket pauses until now + wait_ms and its rate is halved; costs no attempt), unavailable (this source
-- is away until then, whoever shares its bucket goes on; costs no attempt), release (not begun: as if never claimed).
-- @include core place queue settle summon
-- @arg now
-- @args field fence how cost service_ms wait_ms error
-- @reply tokens settled...
-- @keys m n src bkt r x d z w q0 q1 q2 bs dl dlk dlz wake wt inv
local now = begin(ARGV[1])

-- One 429 episode halves the learned rate once, however many calls were under way when it began (promise 6).
local function halve(b, claimed)
  if claimed > b[B_HALVED_AT] then
    local share = min(1, b[B_FACTOR] + max(0, now - b[B_FACTOR_AT]) / RECOVERY_MS)
    b[B_FACTOR], b[B_FACTOR_AT], b[B_HALVED_AT] = max(LEAST_FACTOR, share / 2), now, now
  end
end

-- Like a pause, it only ever extends.
local function hold_back(s, until_ms)
  local from = max(now, s[S_AWAY])
  if s[S_BUCKET] ~= 0 and until_ms > from then s[S_W_AWAY] = s[S_W_AWAY] + until_ms - from end -- else its bucket counts it
  s[S_AWAY] = max(s[S_AWAY], until_ms)
end

local function back_to_front(n, field, r)
  local lane = r[R_LANE]
  r[R_STATE], r[R_AT], r[R_ATTEMPTS] = READY, 0, r[R_ATTEMPTS] - 1
  add_ready(n, lane, 1)
  call('LPUSH', ROOT .. lane_key(lane, n), field)
  put(field, r)
end

local fields, owners = named_objects(2, 7)
local answer = {}
for i = #fields, 1, -1 do -- backwards, so that what is given back keeps its order
  local field, n, at = fields[i], owners[i], i * 7 - 5
  local s, r = sources[n], held(field, tonumber(ARGV[at + 1]))
  answer[i + 1] = (s and r) and 1 or 0
  if s and r then
    local how, service, wait_ms = ARGV[at + 2], tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
    if how == 'release' then
      s[S_CLAIMED] = s[S_CLAIMED] - 1
      end_lease(n, s, r, 0, 0, now)
      if r[R_FLAGS] >= BEGUN then r[R_FLAGS] = flags_of_rest(r, r[R_FLAGS]) end -- an earlier claim had begun its pass
      back_to_front(n, field, r)
    elseif how == 'throttled' or how == 'unavailable' then
      local b = bucket(bucket_id(n, s))
      end_lease(n, s, r, service, tonumber(ARGV[at + 3]), now)
      if how == 'throttled' then
        local c = cold(n, s)
        c[C_THROTTLED] = c[C_THROTTLED] + 1
        halve(b, r[X_CLAIMED])
        b[B_PAUSE] = max(b[B_PAUSE], now + math.ceil(wait_ms)) -- a pause only ever extends
      else
        hold_back(s, now + math.ceil(wait_ms))
      end
      r[R_FLAGS] = flags_of_rest(r, r[R_FLAGS])
      back_to_front(n, field, r)
    else
      local c = cold(n, s)
      c[C_NACKED] = c[C_NACKED] + 1
      end_lease(n, s, r, service, tonumber(ARGV[at + 3]), now)
      learn(s, service)
      retry_or_bury(n, s, field, r, ARGV[at + 6], now, r[R_FLAGS], how == 'hopeless')
    end
  elseif r then
    drop(field)
  end
end
local look_again = flush(now)
answer[1] = summon(now, look_again)
return answer
