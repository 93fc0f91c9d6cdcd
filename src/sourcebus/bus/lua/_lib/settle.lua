-- How a lease ends. `service` is the worker time it took in ms, `cost` the units the provider charged.

local EWMA = 0.2
local LEAST_MS = 0.05 -- nothing is free: no-op work is still taken in turns

-- Loads what the objects named need; answers the numbers of their sources, in the same order.
local function load_all(fields)
  local owners = {}
  for i = 1, #fields do owners[i] = owner(fields[i]) end
  load_sources(owners)
  load_records(fields)
  return owners
end

-- The objects whose leases the caller names, `step` words each behind the first.
local function named_leases(step)
  local fields = {}
  for i = 2, #ARGV, step do fields[#fields + 1] = ARGV[i] end
  return fields, load_all(fields)
end

-- The lease's record, or nil when this lease is not the living one (fencing: Kleppmann 2016, "How to do distributed locking").
local function held(field, fence)
  local r = record(field)
  if r and r[R_STATE] == IN_FLIGHT and r[R_AT] == fence then return r end
  return nil
end

local function end_lease(n, s, r, service, cost, now)
  local b = bucket(bucket_id(n, s))
  s[S_IN_FLIGHT] = s[S_IN_FLIGHT] - 1
  b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - 1
  if cost ~= r[X_COST] and b[B_RATE] > 0 then b[B_TAT] = b[B_TAT] + (cost - r[X_COST]) / rate_now(b, now) end
  s[S_FINISH] = s[S_FINISH] + work(max(service, LEAST_MS) - r[X_EST], s)
  touch(n)
end

local function learn(s, service)
  s[S_EST] = s[S_EST] + EWMA * (max(service, LEAST_MS) - s[S_EST])
  s[S_SERVICE] = s[S_SERVICE] + service
end

-- What came while the lease was held becomes a claim of its own.
local function become_newer(r)
  r[R_SINCE], r[R_ATTEMPTS], r[R_FLAGS], r[R_LANE] = r[X_DIRTY], 0, 0, LANE[r[R_SIGNAL]]
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
  forget_dead_letter(s, field)
  local id = string.format('%d', r[R_AT])
  call('HSET', ROOT .. 'dl', id, cmsgpack.pack({ field, r[R_KIND], r[R_SIGNAL], r[R_ATTEMPTS], error, r[R_SINCE], now }))
  call('HSET', ROOT .. 'dlk', field, id)
  call('ZADD', ROOT .. 'dlz', now, id)
  s[S_DEAD], s[S_DIED] = s[S_DEAD] + 1, s[S_DIED] + 1
end

-- Full-range exponential backoff with jitter; the fence is the (replayable) source of randomness.
local function backoff(s, r)
  local span = min(s[S_BACKOFF_CAP], s[S_BACKOFF] * 2 ^ (r[R_ATTEMPTS] - 1))
  return floor(span * (0.5 + scatter(r[R_AT]) / 2))
end

local function retry_or_bury(n, s, field, r, error, now, flags, hopeless)
  local wait = backoff(s, r)
  if hopeless or r[R_ATTEMPTS] >= s[S_MAX_ATTEMPTS] then
    bury(n, s, field, r, error, now)
    if r[X_DIRTY] == 0 then return drop(field) end
    become_newer(r)
    return make_pending(n, s, field, r, max(now, r[X_CLAIMED] + s[S_WINDOW]), now)
  end
  if r[X_DIRTY] ~= 0 then r[R_LANE] = LANE[r[R_SIGNAL]] end
  r[R_FLAGS] = flags
  make_pending(n, s, field, r, now + wait, now)
end

local function reap(now, most)
  local lost = call('ZRANGEBYSCORE', ROOT .. 'x', '-inf', now, 'LIMIT', 0, most)
  if #lost == 0 then return 0 end
  local owners = load_all(lost)
  for i, field in ipairs(lost) do
    local n, r = owners[i], records[field]
    local s = sources[n]
    if s and r and r[R_STATE] == IN_FLIGHT then
      s[S_REAPED] = s[S_REAPED] + 1
      end_lease(n, s, r, now - r[X_CLAIMED], r[X_COST], now)
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
      local n, r = owners[i], records[field]
      local s = sources[n]
      if s and r and r[R_STATE] == DELAYED and r[R_AT] <= now then
        leave_pending(s, field, r)
        make_ready(n, s, field, r)
        touch(n)
      else
        call('ZREM', ROOT .. 'd', field)
        if not s then drop(field) end
      end
    end
  end
  local woken = call('ZRANGEBYSCORE', ROOT .. 'w', '-inf', now, 'LIMIT', 0, most)
  fetch('bkt', woken, buckets, decode_bucket)
  for _, id in ipairs(woken) do
    if buckets[id] then touch_bucket(id, buckets[id]) else call('ZREM', ROOT .. 'w', id) end
  end
  return #due + #woken
end
