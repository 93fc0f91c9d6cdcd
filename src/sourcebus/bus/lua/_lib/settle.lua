-- How a lease ends. `service` is the worker time it took in ms, `cost` the units the provider charged.

local EWMA = 0.2
local LEAST_MS = 0.05 -- nothing is free: no-op work is still taken in turns

-- The lease's record, or nil when this lease is not the living one (fencing: Kleppmann 2016, "How to do distributed locking").
local function held(field, fence)
  local r = record(field)
  if r and r[R_STATE] == IN_FLIGHT and r[R_AT] == fence then return r end
  return nil
end

-- `est` and `charged` are what the claim was charged in advance, in ms and in units. The caller touches the source.
local function free_slot(s, b, claimed, est, charged, service, cost, now)
  s[S_IN_FLIGHT] = s[S_IN_FLIGHT] - 1
  b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - 1
  if cost > charged and b[B_RATE] > 0 then
    b[B_TAT] = b[B_TAT] + (cost - charged) / rate_now(b, now)
  elseif cost < charged and b[B_RATE] > 0 then
    -- What comes back counts at the full rate: it may have been charged at that, before a 429 halved it. And only as far as
    -- the time since the claim has not brought it back already: else calls claimed meanwhile and these go beyond the burst.
    b[B_TAT] = b[B_TAT] - max(0, (charged - cost) / b[B_RATE] - (now - claimed))
  end
  s[S_FINISH] = s[S_FINISH] + work(max(service, LEAST_MS) - est, s)
end

local function end_lease(n, s, r, service, cost, now)
  free_slot(s, bucket(bucket_id(n, s)), r[X_CLAIMED], r[X_EST], r[X_COST], service, cost, now)
  touch(n)
end

local function learn(s, service)
  local seen = max(service, LEAST_MS)
  s[S_EST] = s[S_SERVICE] == 0 and seen or s[S_EST] + EWMA * (seen - s[S_EST])
  s[S_SERVICE] = s[S_SERVICE] + service
end

-- What came while the lease was held becomes a claim of its own.
local function become_newer(r)
  r[R_SINCE], r[R_ATTEMPTS], r[R_FLAGS], r[R_LANE] = r[X_DIRTY], 0, 0, signal_lane(r[R_PAYLOAD])
end

local function forget_dead_letter(s, field)
  local id = call('HGET', ROOT .. 'dlk', field)
  if id then
    call('HDEL', ROOT .. 'dlk', field)
    call('HDEL', ROOT .. 'dl', id)
    call('ZREM', ROOT .. 'dlz', id)
    s[S_DEAD] = max(0, s[S_DEAD] - 1)
  end
end

local function bury(n, s, field, r, error, now)
  local c = cold(n, s)
  forget_dead_letter(s, field)
  local id = string.format('%d', r[R_AT])
  call('HSET', ROOT .. 'dl', id, cmsgpack.pack({ field, byte(r[R_PAYLOAD], P_KIND), byte(r[R_PAYLOAD], P_SIGNAL), r[R_ATTEMPTS], error, r[R_SINCE], now }))
  call('HSET', ROOT .. 'dlk', field, id)
  call('ZADD', ROOT .. 'dlz', now, id)
  s[S_DEAD], c[C_DIED] = s[S_DEAD] + 1, c[C_DIED] + 1
end

-- The flags of what is to be claimed again. A scan may have been cut in the middle of its pass, whose beginning does not cover
-- what was told since.
local function flags_of_rest(r, flags)
  if byte(r[R_PAYLOAD], P_KIND) ~= KIND_SCAN then return flags end
  local newer = r[R_FLAGS] >= NEWER or r[X_DIRTY] ~= 0
  return flags % BEGUN + BEGUN + (newer and NEWER or 0)
end

-- Full-range exponential backoff with jitter; the fence is the (replayable) source of randomness.
local function backoff(c, r)
  local span = min(c[C_BACKOFF_CAP], c[C_BACKOFF] * 2 ^ (r[R_ATTEMPTS] - 1))
  return floor(span * (0.5 + scatter(r[R_AT]) / 2))
end

local function retry_or_bury(n, s, field, r, error, now, flags, hopeless)
  local c = cold(n, s)
  local wait = backoff(c, r)
  if hopeless or r[R_ATTEMPTS] >= c[C_MAX_ATTEMPTS] then
    bury(n, s, field, r, error, now)
    if r[X_DIRTY] == 0 then return drop(field) end
    become_newer(r)
    return make_pending(n, s, field, r, r[R_LANE] == MANUAL and now or max(now, r[X_CLAIMED] + s[S_WINDOW]), now)
  end
  if r[X_DIRTY] ~= 0 then r[R_LANE] = signal_lane(r[R_PAYLOAD]) end
  flags = flags_of_rest(r, flags)
  r[R_FLAGS] = flags
  make_pending(n, s, field, r, now + wait, now)
end

local function reap(now, most)
  local lost = call('ZRANGEBYSCORE', ROOT .. 'x', '-inf', now, 'LIMIT', 0, most)
  if #lost == 0 then return 0 end
  local owners = load_all(lost)
  for i, field in ipairs(lost) do
    local n, r = owners[i], record(field)
    local s = sources[n]
    if s and r and r[R_STATE] == IN_FLIGHT then
      local c = cold(n, s)
      c[C_REAPED] = c[C_REAPED] + 1
      end_lease(n, s, r, r[X_EST], r[X_COST], now) -- a dead worker's slot was free; one that hangs was charged by extend
      retry_or_bury(n, s, field, r, 'the lease was lost: its worker died or stood still', now, SOLO, false)
    else
      call('ZREM', ROOT .. 'x', field)
      drop(field)
    end
  end
  return #lost
end

local function promote(now, most)
  local due = call('ZRANGEBYSCORE', ROOT .. 'd', '-inf', now, 'LIMIT', 0, most)
  if #due > 0 then
    local owners = load_all(due)
    for i, field in ipairs(due) do
      local n, r = owners[i], record(field)
      local s = sources[n]
      if s and r and r[R_STATE] == DELAYED and r[R_AT] <= now then
        leave_pending(n, r)
        make_ready(n, field, r)
        touch(n)
      else
        call('ZREM', ROOT .. 'd', field)
        if not s then drop(field) end
      end
    end
  end
  local woken = call('ZRANGEBYSCORE', ROOT .. 'w', '-inf', now, 'LIMIT', 0, most)
  load_buckets(woken)
  for _, id in ipairs(woken) do
    if buckets[id] then
      touch_bucket(id, buckets[id])
    elseif sources[id] then -- of a shared bucket, and away until now
      touch(id)
    else
      call('ZREM', ROOT .. 'w', id)
    end
  end
  return #due + #woken
end
