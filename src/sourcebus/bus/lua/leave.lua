-- A consumer goes. Answers an invitation for a successor when work is left, or when `stay_warm` asks for a waiting one.
-- @include core place summon
-- @arg now consumer stay_warm
-- @reply tokens
-- @keys m wt con inv z wake
local HANDOVER_MS = 3000 -- until its successor has begun, so that a worker between two slices does not look dead
local now = begin(ARGV[1])
call('ZREM', ROOT .. 'wt', ARGV[2])
call('ZADD', ROOT .. 'con', 'XX', now + HANDOVER_MS, ARGV[2])
flush(now)
local tokens = summon(now, false)
if #tokens == 0 and ARGV[3] == '1' and live('wt', now) == 0 and live('inv', now) == 0 then tokens = { issue(now) } end
return tokens
