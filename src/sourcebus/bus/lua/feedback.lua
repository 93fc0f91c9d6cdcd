-- A provider said how much is left of its quota: `remaining` units for the next `left_ms`. Sets the rate directly, never
-- above the configured one, and pauses the bucket when nothing is left.
-- @include core place queue summon
-- @arg now source remaining left_ms
-- @reply found
-- @keys m ids n src bkt bs z w
local now = begin(ARGV[1])
local n = call('HGET', ROOT .. 'ids', ARGV[2])
if not n then return 0 end
load_sources({ n })
local b = bucket(bucket_id(n, sources[n]))
local remaining, left_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
if remaining < 1 then
  b[B_PAUSE] = max(b[B_PAUSE], now + math.ceil(left_ms)) -- a pause only ever extends
elseif b[B_RATE] > 0 then
  b[B_FACTOR], b[B_FACTOR_AT] = max(LEAST_FACTOR, min(1, remaining / left_ms / b[B_RATE])), now
end
touch(n)
flush(now)
return 1
