-- What is kept of tickets and subjects, and their names in the orders.

local QUEUED, CALLED, ASIDE = 0, 1, 2

-- Of a ticket: class, where it is, subject, waiter, cost, sequence, until when it waits, when it is due, its turn when it was
-- first of its subject (starts, sequence), and when it was called.
local TICKET = '<BBc16c16I4i7i7i7i7i7i7'
-- Of a subject: how many tickets it has, and how many of them wait; the class's epoch; when its turn starts, or where it does
-- not wait, when its last one ends; sequence; its first ticket's sequence, and that ticket.
local SUBJECT = '<I2I2i7i7i7i7c16'
local NOBODY = '0000000000000000'

local LOST = 'lost' -- what is kept does not fit together: something of it has gone
local RANKS = 0
local WHOLE = 'z' -- is always among the orders: of a shard that a Cluster moves a script sees keys that are all there, or none
local KEPT = '7200000' -- ms: nobody waits longer than an hour, and nothing of a line matters for longer

local all_tickets, all_subjects -- by field, as far as they were needed
local since_when -- until when waiters count as there, as far as that was needed; false: nobody knows them

local function rank(name) call('ZADD', KEYS[2], RANKS, name) end
local function unrank(name) call('ZREM', KEYS[2], name) end

local function read_ticket(id, packed)
  local t = { id = id, packed = packed }
  t.class, t.where, t.subject, t.waiter, t.cost, t.sequence, t.till, t.due, t.starts, t.first, t.called = unpack(TICKET, packed)
  all_tickets[id] = t
  return t
end

local function ticket_of(id)
  local t = all_tickets[id]
  if t then return t end
  local packed = call('HGET', KEYS[1], 't' .. id)
  if not packed then error(LOST, 0) end
  return read_ticket(id, packed)
end

local function head_name(s) return 'h' .. pack('>BI7I7c16', s.class, s.starts, s.sequence, s.id) end
local function behind_name(s, n, id) return 'q' .. pack('>Bc16I7c16', s.class, s.id, n, id) end
local function due_name(t) return 'd' .. pack('>I7c16', t.due, t.id) end
local function finished_name(s) return 'f' .. pack('>BI7I7c16', s.class, s.epoch, s.starts, s.id) end

-- Returns a subject of a class, which may have nothing. One that does not wait has been forgotten with those of its epoch.
local function subject_of(class, id)
  local field = 'u' .. char(class) .. id
  local s = all_subjects[field]
  if s then return s end
  local packed = call('HGET', KEYS[1], field)
  s = { id = id, class = class, packed = packed, held = 0, waiting = 0, epoch = 0, starts = 0, sequence = 0, first = 0, ticket = NOBODY }
  if packed then
    s.held, s.waiting, s.epoch, s.starts, s.sequence, s.first, s.ticket = unpack(SUBJECT, packed)
  end
  s.finished = s.held == 0 and s.starts > 0 and finished_name(s)
  if s.epoch ~= classes[class].epoch then s.epoch, s.starts = classes[class].epoch, 0 end
  all_subjects[field] = s
  return s
end

-- Moves a ticket among those that are due.
local function set_due(t, due)
  if due == t.due then return end
  unrank(due_name(t))
  t.due = due
  rank(due_name(t))
end

-- Says that a waiter has said nothing for too long.
local function is_gone(waiter)
  local lasts = since_when[waiter]
  if lasts == nil then
    local score = call('ZSCORE', KEYS[3], waiter)
    lasts = score and tonumber(score)
    since_when[waiter] = lasts
  end
  return not lasts or lasts < at
end

local function see_waiter(waiter, lasts)
  since_when[waiter] = lasts
  call('ZADD', KEYS[3], string.format('%.0f', lasts), waiter)
end

local function forget_waiter(waiter)
  since_when[waiter] = false
  call('ZREM', KEYS[3], waiter)
end

local function forget_waiters()
  local gone = call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('(%.0f', at))
  for i = 1, #gone do call('ZREM', KEYS[3], gone[i]) end
end

-- Forgets some of the subjects of a class whose last turns have ended, or were of another epoch.
local FORGET = 16
local function forget_finished(class, c)
  local before = 'f' .. pack('>BI7I7', class, c.epoch, c.virtual + 1)
  local names = call('ZRANGE', KEYS[2], '[f' .. char(class), '(' .. before, 'BYLEX', 'LIMIT', 0, FORGET)
  for i = 1, #names do
    unrank(names[i])
    local s = subject_of(class, (unpack('c16', names[i], 17)))
    if s.finished == names[i] then
      s.finished = false
      if s.held == 0 then s.starts = 0 end
    end
  end
end

local function save_subject(field, s)
  local finished = s.held == 0 and s.starts > classes[s.class].virtual and finished_name(s)
  if finished ~= s.finished then
    if s.finished then unrank(s.finished) end
    if finished then rank(finished) end
  end
  if s.held == 0 and not finished then return nil end
  return pack(SUBJECT, s.held, s.waiting, s.epoch, s.starts, s.sequence, s.first, s.ticket)
end

local function save_ticket(t)
  if t.over then return nil end
  return pack(TICKET, t.class, t.where, t.subject, t.waiter, t.cost, t.sequence, t.till, t.due, t.starts, t.first, t.called)
end

-- Writes what has changed.
local function save()
  local set, gone = { 'HSET', KEYS[1] }, { 'HDEL', KEYS[1] }
  local function note(field, packed, before)
    if packed and packed ~= before then
      set[#set + 1], set[#set + 2] = field, packed
    elseif before and not packed then
      gone[#gone + 1] = field
    end
  end
  for class = 0, classes_known - 1 do
    local c = classes[class]
    if c.ended then forget_finished(class, c) end
  end
  for field, s in pairs(all_subjects) do note(field, save_subject(field, s), s.packed) end
  for id, t in pairs(all_tickets) do note('t' .. id, save_ticket(t), t.packed) end
  local parts = { pack(HEAD, VERSION, at, sequence, freed and credit + FREED or credit, pace, admitted, tickets, classes_known, #called) }
  for i = 0, classes_known - 1 do
    local c = classes[i]
    parts[#parts + 1] = pack(CLASS, c.waiting, c.tickets, c.subjects, c.epoch, c.paused, c.since, c.lag, c.virtual)
  end
  for i = 1, #called do
    local t = called[i]
    parts[#parts + 1] = pack(CALL, t.id, t.waiter, t.class, t.cost, t.called, t.sequence)
  end
  set[#set + 1], set[#set + 2] = 's', table.concat(parts)
  call(_G.unpack(set))
  if #gone > 2 then call(_G.unpack(gone)) end
  for i = 1, 3 do call('PEXPIRE', KEYS[i], KEPT) end
end
