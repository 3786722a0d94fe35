-- The live holds of a bucket: a sorted set beside it, by the instants at which they are due. A member
-- is the hold itself, another one when it was renewed; those of one instant lie in the order in which they were
-- made.
--
--   made uint48 big-endian; lease 16 bytes, index uint16, amount, lapse, limit (of its spec), mark's at
--   and entered as float64

local FORESEEN = 64 -- store.Foreseen
local HOLD = '>I6<c16I2ddddd' -- 64 bytes: Redis keeps small sets of longer ones in a way that takes four times the room
local HOLD_NAME, HOLD_UNITS = 24, '<ddddd' -- bytes of it that never change, and the others

local function parse_hold(member)
  local h = { member = member }
  local _
  _, _, _, h.amount, h.lapse, h.limit, h.mark_at, h.mark_entered = unpack(HOLD, member)
  return h
end

-- limit.Hold, until due, which due_text says too. Returns the member.
local function hold(b, op, lease, index, due, due_text)
  b.held = add(b.held, op.amount)
  local mark_at, mark_entered = b.arithmetic.hold(op, b, b.now, op.amount)
  if b.live == 0 then
    b.next, b.last, b.new_set = due, due, true
    if b.made == 0 then call('DEL', b.key .. '#holds') end -- those of a bucket that somebody has deleted
  end
  b.live, b.made = b.live + 1, b.made + 1
  b.next, b.last = min(b.next, due), max(b.last, due)
  local member = pack(HOLD, b.made, lease, index, op.amount, op.lapse, op.limit, mark_at, mark_entered)
  call('ZADD', b.key .. '#holds', due_text, member)
  return member
end

-- limit.Correct.
local function correct(s, b, t, h, charged, actual)
  if charged ~= actual then b.arithmetic.correct(s, b, t, h.mark_at, h.mark_entered, charged, actual) end
end

-- limit.Settle.
local function settle(s, b, t, h, actual)
  b.arithmetic.settle(s, b, t, h.mark_at, h.mark_entered, h.amount, actual)
end

-- Takes a hold from the live ones, and reports whether it was one. A bucket that knows of none is not the one that
-- it was: somebody has deleted that.
local function remove(b, member)
  if b.live == 0 or call('ZREM', b.key .. '#holds', member) == 0 then return false end
  b.live = b.live - 1
  return true
end

-- Returns the member of a hold as it is now.
local function hold_member(h)
  return sub(h.member, 1, HOLD_NAME) .. pack(HOLD_UNITS, h.amount, h.lapse, h.limit, h.mark_at, h.mark_entered)
end

-- limit.Grow: has a live hold be due at another instant, and grow to what it would lapse to, if that is more than is
-- held. Reports whether it was live.
local function renew_hold(b, h, due, due_text, lapse)
  if not remove(b, h.member) then return false end
  h.lapse = lapse
  if lapse > h.amount then
    h.mark_at, h.mark_entered = b.arithmetic.grow(b.spec, b, b.now, h.mark_at, h.mark_entered, lapse - h.amount)
    h.amount = lapse
  end
  h.member = hold_member(h)
  b.live, b.last, b.new_set = b.live + 1, max(b.last, due), true -- it may have been the only one
  call('ZADD', b.key .. '#holds', due_text, h.member)
  return true
end

-- What a hold lapses by: its own limit. When it is due in a later period than its own, nothing of it
-- counts any more, so that it does not matter which one that is: it gets one without a length.
local function own_spec(s, h)
  if s.algorithm == CALENDAR then return { algorithm = FIRST_USE, limit = h.limit, window = 0 } end
  return { algorithm = s.algorithm, limit = h.limit, window = s.window }
end

-- Lets the holds of a bucket that are due lapse, at most `left` of them, each at the instant at which
-- it was due, the earliest first. Returns how many more may lapse, nil if there are more.
local function lapse(b, left)
  if b.live == 0 or b.next > now then return left end
  local holds = b.key .. '#holds'
  local due = pcall('ZRANGEBYSCORE', holds, '-inf', now, 'WITHSCORES', 'LIMIT', 0, left + 1)
  if due.err then unreadable(due) end
  local count = min(#due / 2, left)
  for i = 1, count do
    local h, at = parse_hold(due[2 * i - 1]), tonumber(due[2 * i])
    local own = own_spec(b.spec, h)
    settle(own, b, advance(own, b, at), h, h.lapse)
    remove(b, h.member)
  end
  local first = call('ZRANGE', holds, 0, 0, 'WITHSCORES')
  b.next = tonumber(first[2] or 0)
  if #first == 0 then -- also where somebody has deleted the set
    b.live, b.held, b.floors, b.laid = 0, 0, nil, ''
    if b.spec.algorithm == CONCURRENCY then b.count = 0 end
    if b.spec.algorithm == SLIDING_WINDOW then b.entered = 0 end
  end
  save(b)
  if #due / 2 > left then return nil end
  return left - count
end

-- limit.Frees: would the lapse of the hold make room?
local function frees(s, b, h)
  return h.amount > 0 and (h.lapse < h.amount or s.algorithm == CONCURRENCY)
    and b.arithmetic.counts(s, b, b.now, h.mark_at, h.mark_entered)
end

-- Returns when the first of those live holds lapses that make room by it, 0 if there is none among those
-- that are foreseen.
local function first_to_free(b)
  if b.live == 0 then return 0 end
  local from, chunk = 0, 8
  while from < FORESEEN do
    local some = call('ZRANGE', b.key .. '#holds', from, from + chunk - 1, 'WITHSCORES')
    for i = 1, #some, 2 do
      if frees(b.spec, b, parse_hold(some[i])) then return tonumber(some[i + 1]) end
    end
    from, chunk = from + chunk, FORESEEN - chunk
  end
  return 0
end

-- Returns when the first hold lapses that makes room by it, promises included; 0 if there is none.
local function earliest(b)
  local first = first_to_free(b)
  if b.pending == 0 then return first end
  return first == 0 and b.pending_next or min(first, b.pending_next)
end
