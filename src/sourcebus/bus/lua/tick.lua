-- The once-a-second housekeeping, bounded: promote, reap, sweep, start due polls, and see that somebody comes.
-- @include core place queue settle summon
-- @arg now most warm
-- @reply epoch promoted reaped polls tokens
-- @keys m n src bkt r x d z w q0 q1 q2 c bs pl wt con inv wake dl dlk dlz
local now = begin(ARGV[1])
local most = tonumber(ARGV[2])
local reaped = reap(now, most)
local promoted = promote(now, most)
sweep_wheel(now, most)

local stamp = now
local polls = call('ZRANGEBYSCORE', ROOT .. 'pl', '-inf', stamp, 'LIMIT', 0, most)
load_sources(polls)
for _, n in ipairs(polls) do
  local s = sources[n]
  local poll_ms = s and cold(n, s)[C_POLL] or 0
  if poll_ms > 0 then
    accept(n, s, n .. ':s', scan_payload(cold(n, s)[C_RECONCILE] == 1 and RECONCILE or POLL, now), now)
    touch(n)
    m[M_FENCE] = m[M_FENCE] + 1
    -- plus or minus a tenth, so that sources that were added together drift apart
    call('ZADD', ROOT .. 'pl', now + floor(poll_ms * (0.9 + scatter(m[M_FENCE]) / 5)), n)
  else
    call('ZREM', ROOT .. 'pl', n)
  end
end
local look_again = flush(now)

for _, key in ipairs({ 'inv', 'wt', 'con' }) do call('ZREMRANGEBYSCORE', ROOT .. key, '-inf', stamp) end
local tokens = summon(now, look_again)
-- Work is ready and nobody has claimed since the last tick: whoever was counted on is gone.
if #tokens == 0 and m[M_CLAIMS] == m[M_TICK_CLAIMS] and call('ZCARD', ROOT .. 'z') > 0 then tokens = { issue(now) } end
-- Somebody should be there to be woken, also before the first signal ever.
if #tokens == 0 and ARGV[3] == '1' and live('con', now) == 0 and live('inv', now) == 0 then tokens = { issue(now) } end
m[M_TICK_CLAIMS], m[M_TICKED] = m[M_CLAIMS], now
save_meta()
return { m[M_EPOCH], promoted, reaped, #polls, tokens }
