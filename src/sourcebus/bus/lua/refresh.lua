-- A person asks for one object or the whole source now: past the window and the bucket's wait, never past a provider's
-- pause, and capped. Answers when the next one is possible, or how it was taken.
-- @include core place queue summon
-- @arg now source key payload
-- @reply status until_ms tokens
-- @keys m ids n src bkt r d x z w q0 q1 q2 bs wake wt inv
local now = begin(ARGV[1])
local n = call('HGET', ROOT .. 'ids', ARGV[2])
if not n then return { 'unknown', 0, {} } end
load_sources({ n })
local s = sources[n]
local b = bucket(bucket_id(n, s))
local c = cold(n, s)
local gap = c[C_REFRESH]
if b[B_RATE] > 0 then gap = max(gap, 2 * s[S_COST] / b[B_RATE]) end -- at most half of a very small quota
if c[C_REFRESHED] > 0 and c[C_REFRESHED] + gap > now then
  save_meta()
  return { 'capped', math.ceil(c[C_REFRESHED] + gap), {} }
end
c[C_REFRESHED] = now
local answer = accept(n, s, n .. ':' .. ARGV[3], ARGV[4], now)
count_accept(n, answer)
touch(n)
local look_again = flush(now)
local status, until_ms = 'queued', 0
local pause = max(b[B_PAUSE], s[S_AWAY])
if pause > now then
  status, until_ms = 'provider_pause', math.ceil(pause)
elseif s[S_PAUSED] ~= 0 then
  status = 'paused'
elseif answer == DEFERRED then
  status = 'running'
end
return { status, until_ms, summon(now, look_again) }
