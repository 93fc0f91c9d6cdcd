-- Takes the next due records of sources that may run now, in fair order, and leases them.
-- @include core place queue settle summon
-- @arg now want lease_ms consumer wait_ms most_waiting token
-- @reply epoch now deadline waiting next_due tokens names field record...
-- @keys m src bkt r x d z w q0 q1 q2 c bs names wt con inv wake dl dlk dlz
local want, lease_ms, consumer = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local wait_ms, most_waiting, token = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local now = begin(ARGV[1])
local deadline = now + lease_ms
local GRACE_MS = 5000 -- a consumer counts as live this long beyond the time in which it must be heard of
local STEP = 128 -- most records promoted, reaped or swept in one call

m[M_CLAIMS] = m[M_CLAIMS] + 1
m[M_NEXT_WAKE] = 0
if token ~= '' then call('ZREM', ROOT .. 'inv', token) end
local moved = reap(now, STEP)
moved = moved + promote(now, STEP)
sweep_wheel(now, STEP)
if moved > 0 then flush(now) end

-- The `want` smallest start tags are enough: a served bucket comes back with a larger one.
local heads = call('ZRANGE', ROOT .. 'z', 0, want - 1, 'WITHSCORES')
local ids, own = {}, {}
for i = 1, #heads, 2 do ids[#ids + 1] = heads[i] end
fetch('bkt', ids, buckets, decode_bucket)
for i = 1, #ids do
  local b = buckets[ids[i]]
  if b and b[B_SHARED] == 0 then own[#own + 1] = ids[i] end
end
fetch('src', own, sources, decode_source)

local back_tags, back_ids, back = {}, {}, 0 -- buckets that can be served once more, smallest tag last
local function come_back(tag, id)
  local at = back + 1
  while at > 1 and back_tags[at - 1] < tag do
    back_tags[at], back_ids[at] = back_tags[at - 1], back_ids[at - 1]
    at = at - 1
  end
  back_tags[at], back_ids[at] = tag, id
  back = back + 1
end

local head = 1
local function next_bucket()
  local fresh = tonumber(heads[head + 1])
  if back > 0 and (not fresh or back_tags[back] < fresh) then
    back = back - 1
    return back_ids[back + 1]
  end
  head = head + 2
  return heads[head - 2]
end

-- Live before backfill by weight, never strictly (promise 8).
local function choose_lane(s)
  if s[S_N2] > 0 then return MANUAL end
  if s[S_N1] == 0 then return BACKFILL end
  if s[S_N0] == 0 then return LIVE end
  if s[S_TURN] >= s[S_LIVE_WEIGHT] then
    s[S_TURN] = 0
    return BACKFILL
  end
  s[S_TURN] = s[S_TURN] + 1
  return LIVE
end

local taken, reply, stop = 0, {}, false
local SKIPS = 512 -- most stale list entries passed over in one call
local alone = #ids == 1 and #own == 1 -- nobody to take turns with: take from the list in one go
local stock = {} -- lane → { fields, next } taken from the list and not used yet

local function pop(n, lane)
  if not alone then return call('LPOP', ROOT .. lane_key(lane, n)) end
  local have = stock[lane]
  if not have or have[2] > #have[1] then
    local fields = call('LPOP', ROOT .. lane_key(lane, n), want - taken)
    if not fields then return nil end
    load_records(fields)
    have = { fields, 1 }
    stock[lane] = have
  end
  have[2] = have[2] + 1
  return have[1][have[2] - 1]
end

local function put_back(n, lane, field)
  if alone then stock[lane][2] = stock[lane][2] - 1 else call('LPUSH', ROOT .. lane_key(lane, n), field) end
end

local function next_record(n, s)
  while SKIPS > 0 do
    local lane = choose_lane(s)
    local field = pop(n, lane)
    if not field then
      s[COUNT[lane]] = 0 -- cannot happen; a count that outlives its list must not spin
      if s[S_N0] + s[S_N1] + s[S_N2] == 0 then return nil end
    else
      local r = record(field)
      if r and r[R_STATE] == READY and r[R_LANE] == lane then
        if r[R_FLAGS] == SOLO and taken > 0 then
          put_back(n, lane, field)
          stop = true
          return nil
        end
        return field, r, lane
      end
      SKIPS = SKIPS - 1
    end
  end
  stop = true
  return nil
end

while taken < want and not stop do
  local id = next_bucket()
  if not id then break end
  local b = bucket(id)
  local where, tag, _, n
  if b then where, tag, _, n = bucket_state(id, b, now) end
  if where == IN_READY then
    local s = source(n)
    local field, r, lane = next_record(n, s)
    if field then
      taken = taken + 1
      m[M_FENCE] = m[M_FENCE] + 1
      m[M_V] = max(m[M_V], tag)
      s[COUNT[lane]] = s[COUNT[lane]] - 1
      s[S_IN_FLIGHT], s[S_CLAIMED] = s[S_IN_FLIGHT] + 1, s[S_CLAIMED] + 1
      s[S_FINISH] = max(m[M_V], s[S_FINISH]) + work(s[S_EST], s)
      b[B_IN_FLIGHT] = b[B_IN_FLIGHT] + 1
      charge_tokens(b, s[S_COST], now)
      r[R_STATE], r[R_ATTEMPTS], r[R_AT], r[R_DEADLINE] = IN_FLIGHT, r[R_ATTEMPTS] + 1, m[M_FENCE], deadline
      r[X_CLAIMED], r[X_EST], r[X_COST], r[X_DIRTY] = now, s[S_EST], s[S_COST], 0
      local encoded = encode_record(r)
      put(field, r, encoded)
      reply[taken * 2 - 1] = field
      reply[taken * 2] = encoded
      if r[R_FLAGS] == SOLO then stop = true end
    end
    touch_source(n, s)
    place_source(n, s)
    place_bucket(id, b, now)
    touch_bucket(id, b)
    b[1] = PLACED
    if field and b[B_WHERE] == IN_READY then come_back(b[B_AT], id) end
  elseif b then
    touch_bucket(id, b)
  end
end
for lane, have in pairs(stock) do
  for i = #have[1], have[2], -1 do call('LPUSH', ROOT .. lane_key(lane, own[1]), have[1][i]) end
end

local next_due, waiting = -1, 0
if taken == 0 and not stop then
  next_due = min(earliest('d') or math.huge, earliest('w') or math.huge, earliest('x') or math.huge)
  if wait_ms > 0 and live('wt', now) < most_waiting then
    waiting = 1
    m[M_NEXT_WAKE] = min(next_due, now + wait_ms)
    call('ZADD', ROOT .. 'wt', now + wait_ms + 2000, consumer)
  end
end
if waiting == 0 then call('ZREM', ROOT .. 'wt', consumer) end
call('ZADD', ROOT .. 'con', now + max(lease_ms, wait_ms) + GRACE_MS, consumer)
flush(now)

local tokens = {}
if (taken > 0 or stop) and call('ZCARD', ROOT .. 'z') > 0 then
  local idle = live('wt', now)
  if idle > 0 then
    wake(idle)
  elseif live('inv', now) < MOST_OPEN then
    tokens[1] = issue(now)
  end
end
local answer = { m[M_EPOCH], now, deadline, waiting, next_due == math.huge and -1 or math.ceil(next_due), tokens }
for i = 1, #reply do answer[6 + i] = reply[i] end
return answer
