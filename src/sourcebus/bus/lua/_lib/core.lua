-- Loading, caching and flushing. A script reads and computes first; `flush` writes everything at the end, so an error
-- in between leaves the data as it was (lists are the one exception: taking from them is a write, see claim.lua).
--
-- Values are kept as arrays, built whole: a table that grows is rehashed at every step, and this is the hottest path.
-- The sets that follow from an object's state are written by comparing its state now with the one it was loaded with, so
-- no transition can forget one. Times and start tags are whole numbers: Redis prints and reads those much faster.
-- Names in capitals are numbers put in by scripts.py: slots of the packed values (layout.lua) and the constants below.
local call = redis.call
local floor, max, min = math.floor, math.max, math.min
local pack, unpack_at, byte, sub = struct.pack, struct.unpack, string.byte, string.sub
local ROOT = KEYS[1]

local ABSENT, READY, DELAYED, IN_FLIGHT, COOLING = 0, 1, 2, 3, 4
local BACKFILL, LIVE, MANUAL = 0, 1, 2
local SOLO = 1 -- flag: lost its lease in a crash, so it is claimed alone
local BEGUN, NEWER = 2, 4 -- flags of a scan: a claim of it has begun its pass; a signal has come since
local KIND_SCAN = 3
local POLL, RECONCILE = 1, 4 -- signals' numbers
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
    m = { unpack_at(M_FORMAT, packed) }
  else
    m = {}
    for i = 1, M_LAST do m[i] = 0 end
    m[M_EPOCH] = raw
  end
  local passed = max(0, raw - m[M_RAW])
  m[M_RAW] = raw
  m[M_CLOCK] = (m[M_CLOCK] + passed <= raw) and raw or max(raw, m[M_CLOCK] + floor(passed / 2))
  -- Above every fence of an earlier life, and above those that were lost with the end of the log in a power cut.
  m[M_FENCE] = max(m[M_FENCE], m[M_CLOCK] * 1024)
  return m[M_CLOCK]
end

local function save_meta() call('SET', ROOT .. 'm', pack(M_FORMAT, unpack(m, 1, M_LAST))) end

local counts, sources, colds, buckets, records = {}, {}, {}, {}, {} -- caches; false = looked up and absent
local touched_counts, touched_sources, touched_buckets, touched_records = {}, {}, {}, {} -- their names, in the order touched

local function decode_counts(raw) return { false, unpack_at(N_FORMAT, raw) } end

-- Slots 2 and 3: the place it was loaded with.
local function decode_bucket(raw, _, at)
  local b = { false, 0, 0, unpack_at(B_FORMAT, raw, at or 1) }
  b[B_WAS_AT], b[B_WAS] = b[B_AT], b[B_WHERE]
  return b
end

-- With the bucket of its own, if it has one.
local function decode_source(raw, n)
  local s = { false, raw, unpack_at(S_FORMAT, raw) }
  if s[S_BUCKET] == 0 then buckets[n] = decode_bucket(raw, n, S_BYTES + 1) end
  return s
end

local function encode_source(n, s)
  local raw, c = s[S_RAW], colds[n]
  local own = s[S_BUCKET] == 0 and pack(B_FORMAT, unpack(buckets[n], B_FIRST, B_LAST)) or sub(raw, S_BYTES + 1, S_BYTES + B_BYTES)
  local rest = c and pack(C_FORMAT, unpack(c, C_FIRST, C_LAST)) or sub(raw, S_BYTES + B_BYTES + 1)
  return pack(S_FORMAT, unpack(s, S_FIRST, S_LAST)) .. own .. rest
end

-- Behind a record's own values: the state it was loaded with, its lease's new deadline (false = as it was), whether it was
-- touched, or its packed form where that was made already.
local function decode_record(raw)
  local state, lane, attempts, flags, at, tail = unpack_at(R_FORMAT, raw)
  if state == COOLING then return { state, lane, attempts, flags, at, 0, 0, 0, 0, 0, '', state, false, false } end
  if state ~= IN_FLIGHT then
    return { state, lane, attempts, flags, at, 0, 0, 0, 0, unpack_at('<d', raw, tail), sub(raw, tail + T_BYTES), state, false, false }
  end
  local claimed, est, cost, dirty, since, rest = unpack_at(XT_FORMAT, raw, tail)
  return { state, lane, attempts, flags, at, claimed, est, cost, dirty, since, sub(raw, rest), state, false, false }
end

local function encode_record(r)
  if r[R_STATE] == IN_FLIGHT then return pack(RXT_FORMAT, unpack(r, 1, R_SINCE)) .. r[R_PAYLOAD] end
  return pack(RT_FORMAT, r[R_STATE], r[R_LANE], r[R_ATTEMPTS], r[R_FLAGS], r[R_AT], r[R_SINCE]) .. r[R_PAYLOAD]
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
      if raw then cache[wanted[i]] = decode(raw, wanted[i]) end
    end
  end
end

local function one(key, name, cache, decode)
  local value = cache[name]
  if value == nil then
    local raw = call('HGET', ROOT .. key, name)
    value = raw and decode(raw, name) or false
    cache[name] = value
  end
  return value
end

local function source(n) return one('src', n, sources, decode_source) end
local function counts_of(n) return one('n', n, counts, decode_counts) end

-- A source's own bucket bears its number; a shared one has a number of its own, with a b before it.
local function bucket_id(n, s) return s[S_BUCKET] == 0 and n or 'b' .. s[S_BUCKET] end

local function bucket(id)
  if buckets[id] == nil then
    if byte(id) == 98 then return one('bkt', id, buckets, decode_bucket) end
    if not source(id) or buckets[id] == nil then buckets[id] = false end
  end
  return buckets[id]
end

-- What most calls need not look at. Whoever changes it must also touch the source.
local function cold(n, s)
  local c = colds[n]
  if not c then
    c = { false, unpack_at(C_FORMAT, s[S_RAW], S_BYTES + B_BYTES + 1) }
    colds[n] = c
  end
  return c
end

-- Records stay packed until somebody needs a part of one.
local function as_is(raw) return raw end
local function record(field)
  local r = one('r', field, records, as_is)
  if type(r) == 'string' then
    r = decode_record(r)
    records[field] = r
  end
  return r and r[R_STATE] ~= ABSENT and r or nil
end

local function load_records(fields) fetch('r', fields, records, as_is) end

-- Loads sources, their counts and the buckets they draw from: three commands at most, however many there are.
local function load_sources(ids)
  fetch('n', ids, counts, decode_counts)
  fetch('src', ids, sources, decode_source)
  local wanted = {}
  for i = 1, #ids do
    local s = sources[ids[i]]
    if s and s[S_BUCKET] ~= 0 then wanted[#wanted + 1] = bucket_id(ids[i], s) end
  end
  if #wanted > 0 then fetch('bkt', wanted, buckets, decode_bucket) end
end

-- Loads buckets by their ids, and the sources of those that have only one.
local function load_buckets(ids)
  local own, shared = {}, {}
  for i = 1, #ids do
    local list = byte(ids[i]) == 98 and shared or own
    list[#list + 1] = ids[i]
  end
  if #own > 0 then load_sources(own) end
  if #shared > 0 then fetch('bkt', shared, buckets, decode_bucket) end
end

local function owner(field) return sub(field, 1, string.find(field, ':', 1, true) - 1) end

-- Loads what the objects named need; answers the numbers of their sources, in the same order.
local function load_all(fields)
  local owners = {}
  for i = 1, #fields do owners[i] = owner(fields[i]) end
  load_sources(owners)
  load_records(fields)
  return owners
end

-- The objects that the caller names: every `step` words, from the `first` one on.
local function named_objects(first, step)
  local fields = {}
  for i = first, #ARGV, step do fields[#fields + 1] = ARGV[i] end
  return fields, load_all(fields)
end

local function touch_bucket(id, b)
  if not b[B_TOUCHED] then touched_buckets[#touched_buckets + 1] = id end
  b[B_TOUCHED] = TOUCHED
end

local function touch_counts(n, q)
  if not q[N_TOUCHED] then
    q[N_TOUCHED] = true
    touched_counts[#touched_counts + 1] = n
  end
end

local function touch_source(n, s)
  if not s[S_TOUCHED] then
    s[S_TOUCHED] = true
    touched_sources[#touched_sources + 1] = n
  end
end

local function touch(n)
  local s = source(n)
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
  local r = record(field)
  if r then
    r[R_STATE] = ABSENT
    put(field, r)
  end
end

-- A record that takes the place of whatever was there.
local function new_record(field, lane, now, payload)
  local old = records[field]
  local r = { ABSENT, lane, 0, 0, 0, 0, 0, 0, 0, now, payload, old and old[R_WAS] or ABSENT, false, old and old[R_TOUCHED] }
  records[field] = r
  return r
end

-- A number from 0 to 1 that looks random and is the same on every replay. (Fences are near 2^51: scrambled piecewise,
-- because a product beyond 2^53 loses the very digits that differ.)
local function scatter(seed) return (seed % 65536) * 40503 % 65536 / 65536 end

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
      if r[R_DEADLINE] then
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
    r[R_WAS], r[R_DEADLINE], r[R_TOUCHED] = state, false, false
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
