-- The live holds of a bucket: a sorted set beside it, by the instants at which they are due. A member
-- is the hold itself, which never changes; those of one instant lie in the order in which they were
-- made.
--
--   made uint64 big-endian; lease 16 bytes, index uint16, amount, lapse, limit (of its spec), mark's at
--   and entered as float64

local HOLD = '>I8<c16I2ddddd'

local function parse_hold(member)
  local h = { member = member }
  local _
  _, _, _, h.amount, h.lapse, h.limit, h.mark_at, h.mark_entered = unpack(HOLD, member)
  return h
end

-- limit.Hold. Returns the member.
local function hold(key, s, st, t, amount, lapse, lease, index, due)
  st.held = add(st.held, amount)
  local mark_at, mark_entered = arithmetic(s).hold(s, st, t, amount)
  if st.live == 0 then st.next, st.last, st.made = due, due, 0 end
  st.live = st.live + 1
  st.next, st.last, st.made = min(st.next, due), max(st.last, due), st.made + 1
  local member = pack(HOLD, st.made, lease, index, amount, lapse, s.limit, mark_at, mark_entered)
  call('ZADD', key .. '#holds', due, member)
  return member
end

-- limit.Correct.
local function correct(s, st, t, h, charged, actual)
  if charged ~= actual then arithmetic(s).correct(s, st, t, h.mark_at, h.mark_entered, charged, actual) end
end

-- limit.Settle.
local function settle(s, st, t, h, actual)
  arithmetic(s).release(s, st, h.mark_at, h.mark_entered, h.amount)
  correct(s, st, t, h, h.amount, actual)
end

-- Takes a hold from the live ones, and reports whether it was one.
local function remove(key, st, member)
  if call('ZREM', key .. '#holds', member) == 0 then return false end
  st.live = st.live - 1
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
local function lapse(key, s, left)
  local stored = load(key, s.algorithm)
  if stored.live == 0 or stored.next > now then return left end
  local holds = key .. '#holds'
  local due = pcall('ZRANGEBYSCORE', holds, '-inf', now, 'WITHSCORES', 'LIMIT', 0, left + 1)
  if due.err then corrupt() end
  local st = copy(stored)
  local count = min(#due / 2, left)
  for i = 1, count do
    local h, at = parse_hold(due[2 * i - 1]), tonumber(due[2 * i])
    local own = own_spec(s, h)
    settle(own, st, advance(own, st, at), h, h.lapse)
    remove(key, st, h.member)
  end
  local first = call('ZRANGE', holds, 0, 0, 'WITHSCORES')
  st.next = tonumber(first[2] or 0)
  if #first == 0 then -- also where somebody has deleted the set
    st.live, st.held = 0, 0
    if s.algorithm == CONCURRENCY then st.count = 0 end
    if s.algorithm == SLIDING_WINDOW then st.entered = 0 end
  end
  save(key, s, st)
  if #due / 2 > left then return nil end
  return left - count
end

-- limit.Frees: would the lapse of the hold make room?
local function frees(s, st, t, h)
  return (h.lapse < h.amount or s.algorithm == CONCURRENCY)
    and arithmetic(s).counts(s, st, t, h.mark_at, h.mark_entered)
end

-- Returns when the first of those live holds lapses that make room by it, 0 if there is none.
local function earliest(key, s, st, t)
  if st.live == 0 then return 0 end
  local from, chunk = 0, 8
  while true do
    local some = call('ZRANGE', key .. '#holds', from, from + chunk - 1, 'WITHSCORES')
    for i = 1, #some, 2 do
      if frees(s, st, t, parse_hold(some[i])) then return tonumber(some[i + 1]) end
    end
    if #some < 2 * chunk then return 0 end
    from, chunk = from + chunk, 64
  end
end
