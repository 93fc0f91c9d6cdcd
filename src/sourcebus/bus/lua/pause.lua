-- An operator holds a source, or lets it go on. What is in flight ends by itself.
-- @include core place queue summon
-- @arg now source paused
-- @reply found tokens
-- @keys m ids n src bkt bs z w wake wt inv
local now = begin(ARGV[1])
local n = call('HGET', ROOT .. 'ids', ARGV[2])
if not n then return { 0, {} } end
source(n)[S_PAUSED] = tonumber(ARGV[3])
load_sources({ n })
touch(n)
local look_again = flush(now)
return { 1, summon(now, look_again) }
