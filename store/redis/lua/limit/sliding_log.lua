-- The twin of limit/slidinglog.go: admits iff the sum of what was charged in (t − W, t] + c ≤ L.
--
-- The entries, 16 bytes each, lie behind the state in its key. Of those stored, st.entered in all, the
-- first in sight is number st.rest, counted from 0. A short log is read whole, as the string st.log, and
-- written whole; a long one stays where it is (st.log is nil), and single entries are read and written.
local ENTRY, ENTRY_SIZE = '<dd', 16
local LOG_HEAD = 78 -- bytes of the state in front of the entries: see decide/bucket.lua

local function sliding_log()
  local l = { moves_on = true } -- idle, with each charge
  local MAX_LOG = 10000 -- limit.MaxLog
  local MAX_UNITS = floor(MAX_AMOUNT / MAX_LOG)
  local CHUNK = 16 -- entries that are read at once

  -- Returns entry i: its instant and its units.
  local function entry(st, i)
    if st.log then return unpack(ENTRY, st.log, i * ENTRY_SIZE + 1) end
    local from = st.chunk_from
    if not from or i < from or i >= from + CHUNK then
      from = i == st.entered - 1 and max(0, i - CHUNK + 1) or i
      local at = LOG_HEAD + from * ENTRY_SIZE
      st.chunk = call('GETRANGE', st.key, at, at + CHUNK * ENTRY_SIZE - 1)
      st.chunk_from = from
    end
    return unpack(ENTRY, st.chunk, (i - from) * ENTRY_SIZE + 1)
  end

  -- Writes entry i, which may be the next one.
  local function put(st, i, at, units)
    local raw = pack(ENTRY, at, units)
    if st.log then
      st.log = st.log:sub(1, i * ENTRY_SIZE) .. raw .. st.log:sub((i + 1) * ENTRY_SIZE + 1)
    else
      call('SETRANGE', st.key, LOG_HEAD + i * ENTRY_SIZE, raw)
      st.chunk_from = nil
    end
    st.entered = max(st.entered, i + 1)
  end

  -- Makes the log one that is written whole, of these entries from number first on.
  local function keep_whole(st, raw, first)
    st.log, st.chunk_from = raw:sub(first * ENTRY_SIZE + 1), nil
    st.entered, st.rest = #st.log / ENTRY_SIZE, 0
  end

  local function whole(st)
    if st.log then return st.log end
    return call('GETRANGE', st.key, LOG_HEAD, LOG_HEAD + st.entered * ENTRY_SIZE - 1)
  end

  -- Adds units to entry i, and takes them out of it, as far as it can.
  local function more(st, i, at, units, amount)
    local added = min(amount, MAX_UNITS - units)
    put(st, i, at, units + added)
    st.count = st.count + added
  end

  local function take(st, i, amount)
    local at, units = entry(st, i)
    local taken = min(amount, units)
    if taken > 0 then
      put(st, i, at, units - taken)
      st.count = st.count - taken
    end
    return taken
  end

  -- Returns the number of the first entry that is not before t.
  local function not_before(st, t)
    local low, high = st.rest, st.entered
    while low < high do
      local middle = floor((low + high) / 2)
      if entry(st, middle) >= t then
        high = middle
      else
        low = middle + 1
      end
    end
    return low
  end

  -- Follows a clock that has stepped back to now: entries later than now become one of now.
  local function come_back(st, now)
    keep_whole(st, whole(st), st.rest)
    local first = not_before(st, now)
    if first == st.entered then return end
    local units = 0
    for i = first, st.entered - 1 do
      local _, u = entry(st, i)
      local sum = min(units + u, MAX_UNITS)
      st.count = st.count - u + sum - units
      units = sum
    end
    st.log = st.log:sub(1, first * ENTRY_SIZE) .. pack(ENTRY, now, units)
    st.entered = first + 1
  end

  function l.advance(s, st, now)
    if st.ends == 0 then st.ends = name(now) end
    if now < st.at then
      come_back(st, now)
      st.ends = st.ends + 1
    end
    st.at = now
    while st.rest < st.entered do
      local at, units = entry(st, st.rest)
      if at > now - s.window then return end
      st.count = st.count - units
      st.rest = st.rest + 1
    end
    st.log, st.rest, st.entered = '', 0, 0
  end

  function l.used(_, st) return st.count end

  -- Drops the entries that were given back.
  local function compact(st)
    keep_whole(st, whole(st), st.rest)
    local kept = {}
    for i = 0, st.entered - 1 do
      local at, units = entry(st, i)
      if units > 0 then kept[#kept + 1] = pack(ENTRY, at, units) end
    end
    keep_whole(st, table.concat(kept), 0)
    st.ends = st.ends + 1 -- a hold may have lost its entry, and must not find another one
  end

  function l.charge(_, st, now, amount)
    if st.entered - st.rest == MAX_LOG and st.count < MAX_LOG then compact(st) end
    if st.entered > st.rest then
      local last = st.entered - 1
      local at, units = entry(st, last)
      if at == now or st.entered - st.rest == MAX_LOG then
        more(st, last, now, units, amount)
        return
      end
    end
    if not st.log and st.rest > st.entered / 4 then keep_whole(st, whole(st), st.rest) end
    more(st, st.entered, now, 0, amount)
  end

  -- Takes the newest charges back first.
  function l.give_back(_, st, _, amount)
    local i = st.entered - 1
    while i >= st.rest and amount > 0 do
      amount = amount - take(st, i, amount)
      i = i - 1
    end
  end

  function l.hold(s, st, now, amount)
    l.charge(s, st, now, amount)
    return now, st.ends
  end

  -- Returns the number of the entry that a hold was counted in, nil if it is not there: the first one that
  -- is not before the mark.
  local function number(st, mark_at, mark_entered)
    local i = not_before(st, mark_at)
    if mark_entered == st.ends and i < st.entered then return i end
  end

  function l.counts(s, st, now, mark_at, mark_entered)
    local i = number(st, mark_at, mark_entered)
    if not i then return false end
    local _, units = entry(st, i)
    return units > 0 and mark_at > now - s.window
  end

  function l.correct(s, st, now, mark_at, mark_entered, charged, actual)
    if mark_at <= now - s.window then return end
    local i = number(st, mark_at, mark_entered)
    if i then
      if actual > charged then
        local at, units = entry(st, i)
        more(st, i, at, units, actual - charged)
      else
        take(st, i, charged - actual)
      end
    elseif actual > charged then
      l.charge(s, st, now, actual - charged)
    end
  end

  function l.settle(s, st, now, mark_at, mark_entered, held, actual)
    st.held = less(st.held, held)
    l.correct(s, st, now, mark_at, mark_entered, held, actual)
  end

  function l.grow(s, st, now, mark_at, mark_entered, more)
    st.held = add(st.held, more)
    l.correct(s, st, now, mark_at, mark_entered, 0, more)
    return mark_at, mark_entered
  end

  -- The newest entry in sight that has units; nil if none has.
  function l.newest(st)
    for i = st.entered - 1, st.rest, -1 do
      local at, units = entry(st, i)
      if units > 0 then return at end
    end
  end

  function l.idle(s, st)
    local newest = l.newest(st)
    return newest and add(newest, s.window) or st.at
  end

  -- Returns the entry with whose passing amount fits, and the units that have passed by then: what
  -- limit.Judge needs of the log to say how long to wait.
  function l.fits(s, st, amount)
    local passed = 0
    for i = st.rest, st.entered - 1 do
      local at, units = entry(st, i)
      passed = passed + units
      if st.count - passed + amount <= s.ceiling then return at, passed end
    end
    return 0, 0
  end

  return l
end
