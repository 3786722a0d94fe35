-- Who is next: the twin of lane/order.go.

local SCALE, RENUMBER_FROM = 1048576, 4503599627370496 -- 2^20, and 2^52
local MAX_CALLED = 16

local classes_now, weighted, aging, most, most_of_subject = unpack(SPEC, ARGV[1])
weighted = weighted == 1

local function worth(t)
  local all = t.cost * SCALE
  if not weighted or t.class >= classes_now then return all end
  return floor(all / unpack(WEIGHT, ARGV[1], SPEC_SIZE + 1 + t.class * WEIGHT_SIZE))
end

local function by_call(a, b)
  if a.called ~= b.called then return a.called < b.called end
  return a.sequence < b.sequence
end

-- Returns the place of a ticket among those that are called.
local function place_of(t)
  for i = 1, #called do
    if called[i].id == t.id then return i end
  end
end

-- Returns the subject whose turn it is in a class, which waits.
local function head_of(class)
  local name = first_of('h' .. char(class), 'h' .. char(class + 1))
  if not name then error(LOST, 0) end
  return subject_of(class, (unpack('c16', name, 17)))
end

-- Returns when the turn starts of one that is not behind anybody.
local function front(class)
  local c = classes[class]
  if c.subjects == 0 then return c.virtual end
  return min(c.virtual, head_of(class).starts)
end

local function since(class)
  local at = classes[class].since
  for i = 1, #called do
    if called[i].class == class then at = max(at, called[i].called) end
  end
  return at
end

local function tries(class)
  for i = 1, #called do
    if called[i].class == class then return true end
  end
  return false
end

local function tried_worth(class)
  local all = 0
  for i = 1, #called do
    if called[i].class == class then all = all + worth(called[i]) end
  end
  return all
end

-- Returns the class whose turn it is, of those that wait and are not paused.
local function next_class()
  local best, paused
  paused = 0
  for i = classes_known - 1, 0, -1 do
    local c = classes[i]
    paused = max(paused, c.paused)
    if c.waiting > 0 and paused <= at then
      if not best then
        best = i
      elseif weighted then
        if c.lag + tried_worth(i) < classes[best].lag + tried_worth(best) then best = i end
      elseif since(i) + aging <= at and since(i) < since(best) then
        best = i
      end
    end
  end
  return best
end

-- Moves a subject that waits among the heads.
local function set_turn(s, starts, n)
  if s.starts == starts and s.sequence == n then return end
  unrank(head_name(s))
  s.starts, s.sequence = starts, n
  rank(head_name(s))
end

local function charge(t)
  local s = subject_of(t.class, t.subject)
  if s.waiting == 0 then
    s.starts = s.starts + t.cost * SCALE
    return
  end
  sequence = sequence + 1
  set_turn(s, s.starts + t.cost * SCALE, sequence)
end

local function unqueue(t)
  local c, s = classes[t.class], subject_of(t.class, t.subject)
  waiting, c.waiting, s.waiting = waiting - 1, c.waiting - 1, s.waiting - 1
  if t.sequence ~= s.first then
    unrank(behind_name(s, t.sequence, t.id))
    return
  end
  t.starts, t.first = s.starts, s.sequence
  if s.waiting == 0 then
    unrank(head_name(s))
    c.subjects, s.first, s.ticket = c.subjects - 1, 0, NOBODY
    return
  end
  local prefix = 'q' .. char(t.class) .. s.id
  local name = first_of(prefix, prefix .. '\255')
  if not name then error(LOST, 0) end
  unrank(name)
  s.first, s.ticket = unpack('>I7c16', name, 19)
end

local function take_back(t)
  table.remove(called, place_of(t))
  local s = subject_of(t.class, t.subject)
  if s.waiting == 0 then
    s.starts = max(0, s.starts - t.cost * SCALE)
    return
  end
  local starts, n = max(0, s.starts - t.cost * SCALE), s.sequence
  if starts <= t.starts then n = min(n, t.first) end
  set_turn(s, max(starts, front(t.class)), n)
end

local function served(t)
  local c = classes[t.class]
  c.since = at
  if weighted then
    local from = c.lag
    for i = 0, classes_known - 1 do classes[i].lag = max(classes[i].lag - from, -tried_worth(i)) end
    c.lag = worth(t)
  end
  if c.subjects == 0 then return end
  local first = head_of(t.class)
  local shared = c.virtual + floor(t.cost * SCALE / c.subjects)
  c.virtual = max(c.virtual, min(shared, first.starts + ticket_of(first.ticket).cost * SCALE))
  c.ended = true
end

local function queue(t)
  local c, s = classes[t.class], subject_of(t.class, t.subject)
  local was_first = t.first > 0
  if c.waiting == 0 and not was_first and not tries(t.class) then c.since = at end
  t.where = QUEUED
  waiting, c.waiting, s.waiting = waiting + 1, c.waiting + 1, s.waiting + 1
  if s.waiting > 1 then
    if t.sequence > s.first then
      rank(behind_name(s, t.sequence, t.id))
    else
      rank(behind_name(s, s.first, s.ticket))
      s.first, s.ticket = t.sequence, t.id
    end
    return
  end
  sequence = sequence + 1
  local starts, n, ends = c.virtual, sequence, s.starts
  if was_first or s.held > 1 then starts = front(t.class) end
  if was_first and ends <= t.starts then n = t.first end
  s.starts, s.sequence = max(starts, ends), n
  s.first, s.ticket = t.sequence, t.id
  c.subjects = c.subjects + 1
  rank(head_name(s))
end

-- Forgets that a subject has one of its tickets, and where a class has none, when its subjects' turns have ended.
local function let_go(t)
  local c, s = classes[t.class], subject_of(t.class, t.subject)
  s.held, c.tickets = s.held - 1, c.tickets - 1
  if c.tickets > 0 then return end
  c.virtual, c.epoch, c.ended = 0, c.epoch + 1, true
  for _, other in pairs(all_subjects) do
    if other.class == t.class then other.epoch, other.starts = c.epoch, 0 end
  end
end

-- Takes away from the virtual time of a class, and from all that is measured by it, what all have in common. It is the
-- only thing that takes longer the more there are, once in some thousand turns of the largest cost.
local function renumber(class)
  local c, common = classes[class], front(class)
  c.virtual = c.virtual - common
  local prefix, fields = 'u' .. char(class), call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if fields[i]:sub(1, 2) == prefix then subject_of(class, fields[i]:sub(3)) end
  end
  for _, s in pairs(all_subjects) do
    if s.class == class and s.waiting > 0 then
      set_turn(s, s.starts - common, s.sequence)
    elseif s.class == class then
      s.starts = max(0, s.starts - common)
    end
  end
end

local function take(t)
  local c = classes[t.class]
  if c.virtual >= RENUMBER_FROM then renumber(t.class) end
  c.virtual = max(c.virtual, head_of(t.class).starts)
  c.ended = true
  unqueue(t)
  charge(t)
  t.where, t.called, freed = CALLED, at, freed and #called > 0
  called[#called + 1] = { id = t.id, waiter = t.waiter, class = t.class, cost = t.cost, called = at, sequence = t.sequence }
  table.sort(called, by_call)
end
