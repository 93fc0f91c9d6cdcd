-- Who should come and claim: a waiting consumer is woken, else an invitation is issued for the caller to publish on
-- Celery. Unanswered invitations are few, so slots that are all busy are not buried in messages; each consumer that
-- starts and still finds work issues the next, so free slots fill up in a moment.
-- Why so: docs/decisions/0003-invitations.md.
local INVITE_TTL_MS = 30000
local MOST_OPEN = 4

local function issue(now)
  m[M_INVITES] = m[M_INVITES] + 1
  local token = string.format('%d', m[M_INVITES])
  call('ZADD', ROOT .. 'inv', now + INVITE_TTL_MS, token)
  save_meta()
  return token
end

local function live(key, now) return call('ZCOUNT', ROOT .. key, now, '+inf') end

local function wake(waiting)
  if call('LLEN', ROOT .. 'wake') < waiting then
    call('LPUSH', ROOT .. 'wake', '1')
    call('PEXPIRE', ROOT .. 'wake', 60000)
  end
end

-- To be called after flush. Answers the tokens to publish, at most one.
local function summon(now, look_again)
  local ready = call('ZCARD', ROOT .. 'z') > 0
  if not ready and not look_again then return {} end
  local waiting = live('wt', now)
  if waiting > 0 then
    wake(waiting)
    return {}
  end
  if ready and live('inv', now) == 0 then return { issue(now) } end
  return {}
end
