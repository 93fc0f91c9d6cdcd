-- Forgets a source. Its queue is taken down in slices: call again until `left` is 0.
-- @include core place queue settle
-- @arg now source most
-- @reply found left
-- @keys m ids names n src bkt bids bs pl r x d z w q0 q1 q2 gone cov late dl dlk dlz hd
local now = begin(ARGV[1])
local n = call('HGET', ROOT .. 'ids', ARGV[2])
local found = n and 1 or 0
if n then
  local s = source(n)
  local id = bucket_id(n, s)
  call('HDEL', ROOT .. 'ids', ARGV[2])
  call('HDEL', ROOT .. 'names', n)
  call('HDEL', ROOT .. 'src', n)
  call('HDEL', ROOT .. 'n', n)
  call('ZREM', ROOT .. 'pl', n)
  call('DEL', ROOT .. 'cov:' .. n, ROOT .. 'late:' .. n)
  call('UNLINK', ROOT .. 'hd:' .. n)
  sources[n] = false
  if id == n then
    call('ZREM', ROOT .. 'z', n)
    call('ZREM', ROOT .. 'w', n)
  else
    local b = bucket(id)
    b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - s[S_IN_FLIGHT]
    call('ZREM', ROOT .. 'bs:' .. id, n)
    call('ZREM', ROOT .. 'w', n)
    touch_bucket(id, b)
  end
  call('HSET', ROOT .. 'gone', n, '') -- its queue first; then how far its dead letters have been looked for
end
local left = tonumber(ARGV[3])
local gone = call('HRANDFIELD', ROOT .. 'gone')
local cursor = gone and call('HGET', ROOT .. 'gone', gone)
if cursor == '' then
  for lane = BACKFILL, MANUAL do
    while left > 0 do
      local fields = call('LPOP', ROOT .. lane_key(lane, gone), min(left, 500))
      if not fields then break end
      load_records(fields)
      for _, field in ipairs(fields) do drop(field) end
      left = left - #fields
    end
  end
  if left > 0 then call('HSET', ROOT .. 'gone', gone, '0') end
elseif cursor then
  local page = call('HSCAN', ROOT .. 'dlk', cursor, 'MATCH', gone .. ':*', 'COUNT', left)
  for i = 1, #page[2], 2 do
    call('HDEL', ROOT .. 'dlk', page[2][i])
    call('HDEL', ROOT .. 'dl', page[2][i + 1])
    call('ZREM', ROOT .. 'dlz', page[2][i + 1])
  end
  if page[1] == '0' then call('HDEL', ROOT .. 'gone', gone) else call('HSET', ROOT .. 'gone', gone, page[1]) end
end
flush(now)
return { found, call('HLEN', ROOT .. 'gone') }
