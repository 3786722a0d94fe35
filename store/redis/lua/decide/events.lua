-- Events: thresholds that are reached by what is used of a bucket (store.Event). They are in an outbox: in a cluster one
-- in each shard, which is all that the step's script may touch there, else one in all.
--
--   …#events          hash: id → version uint8 (1), which uint8, at, threshold, used, limit, start and end as int56, label
--   …#events-by-time  sorted set: the ids, by the instants at which they were told
--   …#undelivered     sorted set: those of which nobody has said that they are delivered, by the same
--
-- An id begins with the four digits of the shard of its bucket: so it says where its event is.

local EVENT = '<BBi7i7i7i7i7i7'
local KEPT_EVENTS, MOST_EVENTS = 604800000000, 10000 -- store.KeptEvents, store.MostEvents
local AT_ONCE = 1000 -- arguments of one command: Lua has room for some thousands

-- Returns what stands before the shard in a key, and the four digits of the shard.
local function place_of(key) return key:match('^([^{]*){s(%d%d%d%d)}') end

-- Returns the outbox of a step: its keys; and the channel on which it is told that there are new events.
local function outbox_of(step)
  local head, shard = place_of(KEYS[step.first + 1])
  local place = head .. '{s' .. (step.spans and shard or '0000') .. '}'
  return {
    events = place .. '#events', times = place .. '#events-by-time', undelivered = place .. '#undelivered',
    channel = head .. 'events',
  }
end

-- Says whether the step may use so much of a bucket that it reaches a threshold that was not told of yet.
local function may_cross(step, thresholds, b)
  local told, most = b.entered - 1, b.count
  if thresholds[#thresholds] <= told then return false end
  if step.lease and step.lease.action ~= OPEN then return true end
  for i = 1, step.n do
    if step.buckets[i] == b then most = most + step.ops[i].amount end
  end
  for i = 1, #thresholds do
    if thresholds[i] > told then return thresholds[i] <= most end
  end
end

local function see(there)
  if type(there) == 'table' then unreadable(there) end
end

-- Sees, before anything is written, that the outbox is one, if the step may need it.
local function look_up(step)
  local needed = false
  for i = 1, step.n do
    local thresholds = step.ops[i].thresholds
    needed = needed or thresholds and may_cross(step, thresholds, step.buckets[i])
  end
  if not needed then return end
  local outbox = outbox_of(step)
  see(pcall('HGET', outbox.events, ''))
  see(pcall('ZSCORE', outbox.times, ''))
  see(pcall('ZSCORE', outbox.undelivered, ''))
end

-- Writes an event, unless its period has come again and there is one already.
local function write_event(outbox, step, i, which)
  local op, b = step.ops[i], step.buckets[i]
  local threshold = op.thresholds[which]
  local _, shard = place_of(b.key)
  local id = shard .. redis.sha1hex(b.key .. string.format('|%.0f|%.0f', b.at, threshold))
  if call('HGET', outbox.events, id) then return end
  local label = unpack('<I2c0', steps, step.labels[i])
  local spent, at = b.count - min(b.held, b.count), string.format('%.0f', now)
  local event = pack(EVENT, 1, which - 1, now, threshold, spent, op.limit, b.at, b.ends) .. label
  call('HSET', outbox.events, id, event)
  call('ZADD', outbox.times, at, id)
  call('ZADD', outbox.undelivered, at, id)
end

local function drop(outbox, ids)
  for i = 1, #ids, AT_ONCE do
    local last = min(i + AT_ONCE - 1, #ids)
    call('HDEL', outbox.events, _G.unpack(ids, i, last))
    call('ZREM', outbox.times, _G.unpack(ids, i, last))
    call('ZREM', outbox.undelivered, _G.unpack(ids, i, last))
  end
end

-- Drops events that are too old, and those that are too many.
local function trim(outbox)
  drop(outbox, call('ZRANGEBYSCORE', outbox.times, '-inf', string.format('(%.0f', now - KEPT_EVENTS)))
  drop(outbox, call('ZRANGE', outbox.times, '0', tostring(-1 - MOST_EVENTS)))
  local kept = time_to_live(now + KEPT_EVENTS)
  call('PEXPIRE', outbox.events, kept)
  call('PEXPIRE', outbox.times, kept)
  call('PEXPIRE', outbox.undelivered, kept)
end

-- Tells of the thresholds that are reached behind the step.
local function tell(step)
  local outbox
  for i = 1, step.n do
    local thresholds, b = step.ops[i].thresholds, step.buckets[i]
    if thresholds then
      local from, to = b.arithmetic.crossed(b, thresholds)
      for which = from + 1, to do
        outbox = outbox or outbox_of(step)
        b.wrote = true
        write_event(outbox, step, i, which)
      end
    end
  end
  if not outbox then return end
  trim(outbox)
  pcall('PUBLISH', outbox.channel, '') -- a hint, without which the step is as good
end

return { look_up = look_up, tell = tell }
