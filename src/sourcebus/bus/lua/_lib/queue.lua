-- An object's record and its transitions: pending (ready or delayed), in flight, cooling, absent. See DESIGN §3's figure.
-- A ready record also stands in its lane's list `q<lane>:<source>`. A record that moved to a better lane leaves a stale
-- entry behind in the old list; it is recognised by its lane when it comes up and skipped.

local LANES = { [BACKFILL] = 'q0:', [LIVE] = 'q1:', [MANUAL] = 'q2:' }
local function lane_key(lane, n) return LANES[lane] .. n end

local COUNT = { [BACKFILL] = S_N0, [LIVE] = S_N1, [MANUAL] = S_N2 }

local function make_ready(n, s, field, r)
  r[R_STATE], r[R_AT] = READY, 0
  s[COUNT[r[R_LANE]]] = s[COUNT[r[R_LANE]]] + 1
  push(lane_key(r[R_LANE], n), field)
  put(field, r)
end

local function make_delayed(s, field, r, due)
  r[R_STATE], r[R_AT] = DELAYED, due
  s[S_DELAYED] = s[S_DELAYED] + 1
  put(field, r)
end

local function make_pending(n, s, field, r, due, now)
  if due > now then make_delayed(s, field, r, due) else make_ready(n, s, field, r) end
end

local function leave_pending(s, field, r)
  if r[R_STATE] == DELAYED then
    s[S_DELAYED] = s[S_DELAYED] - 1
  else
    s[COUNT[r[R_LANE]]] = s[COUNT[r[R_LANE]]] - 1
  end
end

-- Cooling records of all sources stand in lists by the second in which they end: a timer wheel, swept oldest first.
local function make_cooling(field, r, ends)
  r[R_STATE], r[R_AT], r[R_TAIL], r[R_FLAGS] = COOLING, ends, '', 0
  local second = floor(ends / 1000) + 1
  push('c:' .. second, field)
  if m[M_WHEEL] == 0 or second < m[M_WHEEL] then m[M_WHEEL] = second end
  if second > m[M_WHEEL_END] then m[M_WHEEL_END] = second end
  put(field, r)
end

local function sweep_wheel(now, most)
  local slots = most
  while m[M_WHEEL] > 0 and m[M_WHEEL] * 1000 <= now and most > 0 and slots > 0 do
    local key = ROOT .. 'c:' .. m[M_WHEEL]
    local fields = call('LPOP', key, min(most, 256))
    if fields then
      load_records(fields)
      for _, field in ipairs(fields) do
        local r = records[field]
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

local function pending_of(s) return s[S_N0] + s[S_N1] + s[S_N2] + s[S_DELAYED] end

local function merge(r, kind, signal, observed, tail)
  if LANE[signal] >= r[R_LANE] then r[R_SIGNAL] = signal end
  r[R_KIND] = kind
  r[R_OBSERVED] = max(r[R_OBSERVED], observed)
  if tail ~= '' then r[R_TAIL] = tail end
end

-- One signal meets the object's record. This is the dedup window: a signal is never dropped, only joined to a claim
-- that will begin after it.
local function accept(n, s, field, kind, signal, observed, tail, now)
  local r = record(field)
  local lane = LANE[signal]
  if r and r[R_STATE] == IN_FLIGHT then
    local answer = MERGED
    if r[X_DIRTY] == 0 then
      r[X_DIRTY] = now
      answer = DEFERRED
    end
    r[R_LANE] = max(r[R_LANE], lane)
    merge(r, kind, signal, observed, tail)
    put(field, r)
    return answer
  end
  if r and r[R_STATE] ~= COOLING then
    if lane > r[R_LANE] and (r[R_STATE] == READY or lane == MANUAL) then
      leave_pending(s, field, r)
      merge(r, kind, signal, observed, tail)
      r[R_LANE] = lane
      make_ready(n, s, field, r)
    else
      merge(r, kind, signal, observed, tail)
      r[R_LANE] = max(r[R_LANE], lane)
      put(field, r)
    end
    return MERGED
  end
  if kind ~= KIND_SCAN and pending_of(s) >= s[S_MAX_PENDING] then
    s[S_OVERFLOWED] = s[S_OVERFLOWED] + 1
    accept(n, s, n .. ':s', KIND_SCAN, signal, observed, '', now)
    return OVERFLOWED
  end
  local due = (r and lane ~= MANUAL) and r[R_AT] or now
  r = new_record(field, lane, kind, signal, now, observed, tail)
  make_pending(n, s, field, r, due, now)
  return due > now and DEFERRED or ACCEPTED
end

local function count_accept(s, answer)
  s[S_ACCEPTED] = s[S_ACCEPTED] + 1
  if answer == MERGED then s[S_MERGED] = s[S_MERGED] + 1 end
end
