-- An object's record and its transitions: pending (ready or delayed), in flight, cooling, absent. See DESIGN §3's figure.
-- A ready record also stands in its lane's list `q<lane>:<source>`. A record that moved to a better lane leaves a stale
-- entry behind in the old list; it is recognised by its lane when it comes up and skipped.

local LANES = { [BACKFILL] = 'q0:', [LIVE] = 'q1:', [MANUAL] = 'q2:' }
local function lane_key(lane, n) return LANES[lane] .. n end

local COUNT = { [BACKFILL] = N_N0, [LIVE] = N_N1, [MANUAL] = N_N2 }
local function add_ready(n, lane, more)
  local q = counts_of(n)
  q[COUNT[lane]] = q[COUNT[lane]] + more
  touch_counts(n, q)
end

local function make_ready(n, field, r)
  r[R_STATE], r[R_AT] = READY, 0
  add_ready(n, r[R_LANE], 1)
  push(lane_key(r[R_LANE], n), field)
  put(field, r)
end

local function make_delayed(n, s, field, r, due, now)
  local q = counts_of(n)
  r[R_STATE], r[R_AT] = DELAYED, due
  q[N_DELAYED], s[S_W_WINDOW] = q[N_DELAYED] + 1, s[S_W_WINDOW] + due - now
  touch_counts(n, q)
  put(field, r)
end

local function make_pending(n, s, field, r, due, now)
  if due > now then make_delayed(n, s, field, r, due, now) else make_ready(n, field, r) end
end

local function leave_pending(n, r)
  if r[R_STATE] == DELAYED then
    local q = counts_of(n)
    q[N_DELAYED] = q[N_DELAYED] - 1
    touch_counts(n, q)
  else
    add_ready(n, r[R_LANE], -1)
  end
end

-- Cooling records of all sources stand in lists by the second in which they end: a timer wheel, swept oldest first.
local cooling = {} -- by their end: the list's key and the record, which are the same for all that end together
local function cooling_until(ends)
  local known = cooling[ends]
  if not known then
    local second = floor(ends / 1000) + 1
    if m[M_WHEEL] == 0 or second < m[M_WHEEL] then m[M_WHEEL] = second end
    if second > m[M_WHEEL_END] then m[M_WHEEL_END] = second end
    known = { 'c:' .. second, pack(R_FORMAT, COOLING, BACKFILL, 0, 0, ends) }
    cooling[ends] = known
  end
  return known[1], known[2]
end

local function sweep_wheel(now, most)
  local slots = most
  while m[M_WHEEL] > 0 and m[M_WHEEL] * 1000 <= now and most > 0 and slots > 0 do
    local key = ROOT .. 'c:' .. m[M_WHEEL]
    local fields = call('LPOP', key, min(most, 256))
    if fields then
      load_records(fields)
      for _, field in ipairs(fields) do
        local r = record(field)
        if r and r[R_STATE] == COOLING and r[R_AT] <= now then drop(field) end
      end
      most = most - #fields
    else
      slots = slots - 1
      if m[M_WHEEL] >= m[M_WHEEL_END] then
        m[M_WHEEL], m[M_WHEEL_END] = 0, 0
      else
        m[M_WHEEL] = m[M_WHEEL] + 1
      end
    end
  end
end

local ACCEPTED, MERGED, DEFERRED, OVERFLOWED = 1, 2, 3, 4

local function pending_of(q) return q[N_N0] + q[N_N1] + q[N_N2] + q[N_DELAYED] end

local function signal_lane(payload) return LANE[byte(payload, P_SIGNAL)] end

local function scan_payload(signal, observed) return pack(P_FORMAT, KIND_SCAN, signal, observed) end

-- The newer signal's word counts; but a lesser lane's does not hide who asked first, no time of observation goes back, and
-- a version or trace stays until there is a newer one.
local function merge(r, payload)
  local old = r[R_PAYLOAD]
  local signal, observed, tail = byte(payload, P_SIGNAL), unpack_at('<d', payload, 3), sub(payload, P_BYTES + 1)
  local _, old_signal, old_observed = unpack_at(P_FORMAT, old)
  -- Nor does a poll hide that somebody had told of the change: the share of those is what `coverage` is about.
  local told = signal == POLL and LANE[old_signal] == LIVE and r[R_STATE] ~= IN_FLIGHT
  if told or LANE[signal] < r[R_LANE] then signal = old_signal end
  if tail == '' then tail = sub(old, P_BYTES + 1) end
  r[R_PAYLOAD] = pack(P_FORMAT, byte(payload, P_KIND), signal, max(observed, old_observed)) .. tail
end

-- One signal meets the object's record. This is the dedup window: a signal is never dropped, only joined to a claim
-- that will begin after it.
local function accept(n, s, field, payload, now)
  local r = record(field)
  local lane = signal_lane(payload)
  if r and r[R_STATE] == IN_FLIGHT then
    local answer = MERGED
    if r[X_DIRTY] == 0 then
      r[X_DIRTY] = now
      r[R_LANE] = lane -- the next claim is for the newer signals alone: what a manual one found is not manual
      answer = DEFERRED
    end
    r[R_LANE] = max(r[R_LANE], lane)
    merge(r, payload)
    put(field, r)
    return answer
  end
  if r and r[R_STATE] ~= COOLING then
    if r[R_FLAGS] >= BEGUN and r[R_FLAGS] < NEWER then r[R_FLAGS] = r[R_FLAGS] + NEWER end
    if lane > r[R_LANE] and (r[R_STATE] == READY or lane == MANUAL) then
      leave_pending(n, r)
      merge(r, payload)
      r[R_LANE] = lane
      make_ready(n, field, r)
    else
      merge(r, payload)
      r[R_LANE] = max(r[R_LANE], lane)
      put(field, r)
    end
    return MERGED
  end
  local kind = byte(payload, P_KIND)
  if kind ~= KIND_SCAN and pending_of(counts_of(n)) >= counts[n][N_MAX_PENDING] then
    local c = cold(n, s)
    c[C_OVERFLOWED] = c[C_OVERFLOWED] + 1
    accept(n, s, n .. ':s', scan_payload(byte(payload, P_SIGNAL), unpack_at('<d', payload, 3)), now)
    return OVERFLOWED
  end
  local due = (r and lane ~= MANUAL) and r[R_AT] or now
  r = new_record(field, lane, now, payload)
  make_pending(n, s, field, r, due, now)
  return due > now and DEFERRED or ACCEPTED
end

local function count_accept(n, answer)
  local q = counts_of(n)
  q[N_ACCEPTED] = q[N_ACCEPTED] + 1
  if answer == MERGED then q[N_MERGED] = q[N_MERGED] + 1 end
  touch_counts(n, q)
end
