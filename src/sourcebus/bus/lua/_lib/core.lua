-- Loading, caching and flushing. A script reads and computes first; `flush` writes everything at the end, so an error
-- in between leaves the data as it was (lists are the one exception: taking from them is a write, see claim.lua).
--
-- Values are kept as arrays, built whole: a table that grows is rehashed at every step, and this is the hottest path.
-- Slot 1 of a source or bucket says whether it was touched; the sets that follow from an object's state are written by
-- comparing its state now with the one it was loaded with, so no transition can forget one. Times and start tags are whole
-- numbers: Redis prints and reads those much faster.
local call = redis.call
local floor, max, min = math.floor, math.max, math.min
local ROOT = KEYS[1]

local ABSENT, READY, DELAYED, IN_FLIGHT, COOLING = 0, 1, 2, 3, 4
local BACKFILL, LIVE, MANUAL = 0, 1, 2
local SOLO = 1 -- flag: lost its lease in a crash, so it is claimed alone
local KIND_SCAN = 3
local LANE = { [0] = LIVE, LIVE, LIVE, MANUAL, BACKFILL } -- by signal: webhook poll watch manual reconcile
local TOUCHED, PLACED = 1, 2

local m

-- Server time never goes back, and after a forward jump that was a mistake it runs at half speed until true again.
local function begin(now_arg)
  local raw = floor(tonumber(now_arg))
  if raw <= 0 then
    local t = call('TIME')
    raw = t[1] * 1000 + floor(t[2] / 1000)
  end
  local packed = call('GET', ROOT .. 'm')
  if packed then
    m = { struct.unpack(M_FORMAT, packed) }
  else
    m = {}
    for i = 1, M_SIZE do m[i] = 0 end
    m[M_EPOCH] = raw
    m[M_FENCE] = floor(raw) * 1024 -- above every fence of an earlier life of this bus
  end
  local passed = max(0, raw - m[M_RAW])
  m[M_RAW] = raw
  m[M_CLOCK] = (m[M_CLOCK] + passed <= raw) and raw or max(raw, m[M_CLOCK] + floor(passed / 2))
  return m[M_CLOCK]
end

local function save_meta() call('SET', ROOT .. 'm', struct.pack(M_FORMAT, unpack(m, 1, M_SIZE))) end

local sources, buckets, records = {}, {}, {} -- caches; false = looked up and absent
local touched_sources, touched_buckets, touched_records = {}, {}, {} -- their names, in the order touched

local function decode_source(raw) return { false, struct.unpack(S_FORMAT, raw) } end

-- Behind a bucket's own values: where and at when it was loaded.
local function decode_bucket(raw)
  local b = { false, struct.unpack(B_FORMAT, raw) }
  b[B_WAS_AT] = b[B_AT]
  b[B_WAS] = b[B_WHERE]
  return b
end

-- Behind a record's own values: the state it was loaded with, its lease's new deadline (0 = as it was), its packed form
-- where that was made already.
local function decode_record(raw)
  local state, lane, kind, signal, attempts, flags, since, observed, at, tail = struct.unpack(R_FORMAT, raw)
  if state ~= IN_FLIGHT then
    return { state, lane, kind, signal, attempts, flags, since, observed, at, 0, 0, 0, 0, string.sub(raw, tail), state, 0, false }
  end
  local claimed, est, cost, dirty, rest = struct.unpack(X_FORMAT, raw, tail)
  return { state, lane, kind, signal, attempts, flags, since, observed, at, claimed, est, cost, dirty, string.sub(raw, rest), state, 0, false }
end

local function encode_record(r)
  local head = struct.pack(R_FORMAT, r[R_STATE], r[R_LANE], r[R_KIND], r[R_SIGNAL], r[R_ATTEMPTS], r[R_FLAGS],
    r[R_SINCE], r[R_OBSERVED], r[R_AT])
  if r[R_STATE] == IN_FLIGHT then
    return head .. struct.pack(X_FORMAT, r[X_CLAIMED], r[X_EST], r[X_COST], r[X_DIRTY]) .. r[R_TAIL]
  end
  return head .. r[R_TAIL]
end

-- Redis's Lua unpacks at most some 7,900 values at once, so long lists go in parts.
local MOST_VALUES = 4000

-- Loads what the cache does not hold yet, in one command. Names may repeat.
local function fetch(key, names, cache, decode)
  local wanted, n = {}, 0
  for i = 1, #names do
    local name = names[i]
    if cache[name] == nil then
      n = n + 1
      wanted[n] = name
      cache[name] = false
    end
  end
  for start = 1, n, MOST_VALUES do
    local stop = min(start + MOST_VALUES - 1, n)
    local values = call('HMGET', ROOT .. key, unpack(wanted, start, stop))
    for i = start, stop do
      local raw = values[i - start + 1]
      if raw then cache[wanted[i]] = decode(raw) end
    end
  end
end

local function one(key, name, cache, decode)
  local value = cache[name]
  if value == nil then
    local raw = call('HGET', ROOT .. key, name)
    value = raw and decode(raw) or false
    cache[name] = value
  end
  return value
end

local function source(n) return one('src', n, sources, decode_source) end
local function bucket(id) return one('bkt', id, buckets, decode_bucket) end

local function record(field)
  local r = one('r', field, records, decode_record)
  return r and r[R_STATE] ~= ABSENT and r or nil
end

local function load_records(fields) fetch('r', fields, records, decode_record) end

-- A source's own bucket bears its number; a shared one has a number of its own.
local function bucket_id(n, s) return s[S_BUCKET] == 0 and n or 'b' .. s[S_BUCKET] end

-- Loads sources and the buckets they draw from: two commands, however many there are.
local function load_sources(ids)
  fetch('src', ids, sources, decode_source)
  local wanted = {}
  for i = 1, #ids do
    local s = sources[ids[i]]
    if s then wanted[#wanted + 1] = bucket_id(ids[i], s) end
  end
  fetch('bkt', wanted, buckets, decode_bucket)
end

local function touch_bucket(id, b)
  if not b[1] then touched_buckets[#touched_buckets + 1] = id end
  b[1] = TOUCHED
end

local function touch_source(n, s)
  if not s[1] then
    s[1] = true
    touched_sources[#touched_sources + 1] = n
  end
end

local function touch(n)
  local s = sources[n]
  touch_source(n, s)
  local id = bucket_id(n, s)
  touch_bucket(id, bucket(id))
end

-- `encoded`, where the caller has made it already, spares making it again.
local function put(field, r, encoded)
  if not r[R_TOUCHED] then touched_records[#touched_records + 1] = field end
  r[R_TOUCHED] = encoded or true
end

local function drop(field)
  local r = records[field]
  if r then
    r[R_STATE] = ABSENT
    put(field, r)
  end
end

-- A record that takes the place of whatever was there.
local function new_record(field, lane, kind, signal, now, observed, tail)
  local old = records[field]
  local r = { ABSENT, lane, kind, signal, 0, 0, now, observed, 0, 0, 0, 0, 0, tail,
    old and old[R_WAS] or ABSENT, 0, old and old[R_TOUCHED] }
  records[field] = r
  return r
end

-- A number from 0 to 1 that looks random and is the same on every replay. (Fences are near 2^51: scrambled piecewise,
-- because a product beyond 2^53 loses the very digits that differ.)
local function scatter(seed) return (seed % 65536) * 40503 % 65536 / 65536 end

local function owner(field) return string.sub(field, 1, string.find(field, ':', 1, true) - 1) end

local pushes = {} -- list key → values for RPUSH
local function push(key, value)
  local list = pushes[key]
  if list then
    list[#list + 1] = value
  else
    pushes[key] = { value }
  end
end

local function send(command, key, values)
  for start = 1, #values, MOST_VALUES do
    call(command, ROOT .. key, unpack(values, start, min(start + MOST_VALUES - 1, #values)))
  end
end

-- Writes the records that changed, and the sets that follow from their states. Answers the earliest new due time.
local function flush_records()
  local set, del = {}, {}
  local leased, unleased, delayed, undelayed = {}, {}, {}, {}
  local soonest = math.huge
  for i = 1, #touched_records do
    local field = touched_records[i]
    local r = records[field]
    local state, was, encoded = r[R_STATE], r[R_WAS], r[R_TOUCHED]
    if state ~= ABSENT then
      set[#set + 1] = field
      set[#set + 1] = encoded ~= true and encoded or encode_record(r)
    elseif was ~= ABSENT then
      del[#del + 1] = field
    end
    if state == IN_FLIGHT then
      if r[R_DEADLINE] > 0 then
        leased[#leased + 1] = r[R_DEADLINE]
        leased[#leased + 1] = field
      end
    elseif was == IN_FLIGHT then
      unleased[#unleased + 1] = field
    end
    if state == DELAYED then
      delayed[#delayed + 1] = r[R_AT]
      delayed[#delayed + 1] = field
      soonest = min(soonest, r[R_AT])
    elseif was == DELAYED then
      undelayed[#undelayed + 1] = field
    end
    r[R_WAS], r[R_DEADLINE], r[R_TOUCHED] = state, 0, false
  end
  touched_records = {}
  send('HSET', 'r', set)
  send('HDEL', 'r', del)
  send('ZADD', 'x', leased)
  send('ZREM', 'x', unleased)
  send('ZADD', 'd', delayed)
  send('ZREM', 'd', undelayed)
  return soonest
end
