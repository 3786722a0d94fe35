#!lua
-- A step in a line in which callers wait for their turn.
--
-- The twin of package lane: same names, same order. The conformance suite holds them equal. The script is made of the files
-- of this folder: this head, which answers a step for which the line is idle; records.lua, what is kept; order.lua, who is
-- next; and step.lua, what a step does.
--
-- KEYS[1]  the line, a hash
--            s            how it stands: see records.lua, like the other two
--            t + ticket   a ticket
--            u + class uint8 + subject   a subject that has tickets, or whose last turn has not ended
-- KEYS[2]  its orders, a sorted set of scores 0: what is first begins a range of names
--            h + class + starts + sequence + subject   whose turn it is: subjects that wait
--            q + class + subject + sequence + ticket   tickets behind the first one of their subject
--            d + due + ticket                          all tickets
--            f + class + epoch + ends + subject        subjects that have no ticket, and whose last turn has not ended
-- KEYS[3]  its waiters, a sorted set: by until when they count as there
--
-- ARGV[1]  how the line orders, and ARGV[2] the step: see SPEC and STEP
-- ARGV[3]  now in µs; empty in production, where the clock of Redis counts. Only tests set it.
-- ARGV[4]  what stands before a waiter in hex in the name of the channel on which it is told of calls
-- ARGV[5]  the line's name
--
-- Reply    one string: see ANSWER

local OK, CORRUPT = 0, 2 -- those of apply.lua
local TOLERANCE = 60000000 -- limit.Tolerance
local ENTER, ADMITTED, REFUSED, LEAVE, FREE, BEAT = 0, 1, 2, 3, 4, 5
local NONE, GO, WAITS, FULL, FULL_FOR_SUBJECT, UNKNOWN = 0, 1, 2, 3, 4, 5

-- Classes, whether they have weights, aging, most tickets in all and of a subject; behind it the weights as uint16.
local SPEC, SPEC_SIZE, WEIGHT, WEIGHT_SIZE = '<BBi7I2I2', 13, '<I2', 2
-- What to do, whether it was tried, and whether to keep the place; class, waiter, ticket, subject, cost, wait, until, room.
local STEP = '<BBBBc16c16c16I4i7i7B'

-- How the line stands: version, instant, sequence, credit and FREED, pace, when a ticket had its turn last, how many tickets, classes,
-- and tickets that are called. Behind it the classes, and what is called.
local HEAD, HEAD_SIZE, VERSION = '<Bi7i7Bi7i7I2BB', 34, 1
local FREED = 128 -- added to the credit: room has come since the first of those that are called was
-- Of a class: how many wait, tickets, and subjects that wait; epoch, until when it is paused, since, lag, and virtual time.
local CLASS, CLASS_SIZE = '<I2I2I2i7i7i7i7i7', 41
-- Of one that is called: ticket, waiter, class, cost, when it was called, and the ticket's sequence.
local CALL, CALL_SIZE = '<c16c16BI4i7i7', 51

local call, pack, unpack, char = redis.call, struct.pack, struct.unpack, string.char
local min, max, floor = math.min, math.max, math.floor

local doing, tried, keeps, of_class, me, of_ticket, of_subject, cost, wait, till, room = unpack(STEP, ARGV[2])
local now = tonumber(ARGV[3])
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- What the script answers: a code, and of an outcome now, answer, whether the waiter was gone, due, waiting, ahead, pace, and
-- how many calls there are; behind it each one's ticket and waiter.
local ANSWER = '<Bi7BBi7I2I2i7I2'

local known = call('HMGET', KEYS[1], 's', 't' .. of_ticket)
local there = known[1]

-- What is not there is idle, which is soon said: most lines are never waited in.
if not there and (doing == FREE or doing == ENTER and tried == 0) then
  return pack(ANSWER, OK, now, doing == ENTER and GO or NONE, 1, 0, 0, 0, 0, 0)
end

local at, sequence, credit, freed, pace, admitted, tickets -- as in lane.Line; tickets: how many
local classes, classes_known, called, waiting

-- Takes in how the line stands; nothing: it is empty. Returns false where it is not what ration writes.
local function load(packed)
  at, sequence, credit, freed, pace, admitted, tickets = 0, 0, 0, false, 0, 0, 0
  classes, classes_known, called, waiting = {}, 0, {}, 0
  if not packed then return true end
  if #packed < HEAD_SIZE then return false end
  local version, calls, pos
  version, at, sequence, credit, pace, admitted, tickets, classes_known, calls, pos = unpack(HEAD, packed)
  if credit >= FREED then credit, freed = credit - FREED, true end
  if version ~= VERSION or #packed ~= HEAD_SIZE + classes_known * CLASS_SIZE + calls * CALL_SIZE then return false end
  for i = 0, classes_known - 1 do
    local c = {}
    c.waiting, c.tickets, c.subjects, c.epoch, c.paused, c.since, c.lag, c.virtual, pos = unpack(CLASS, packed, pos)
    classes[i], waiting = c, waiting + c.waiting
  end
  for i = 1, calls do
    local t = {}
    t.id, t.waiter, t.class, t.cost, t.called, t.sequence, pos = unpack(CALL, packed, pos)
    called[i] = t
  end
  return true
end

local function answer(out)
  return pack(ANSWER, OK, out.now, out.answer, out.gone and 1 or 0, out.due, out.waiting, out.ahead,
    admitted > 0 and max(pace, at - admitted) or pace, #out.calls / 2)
    .. table.concat(out.calls)
end

-- Returns until when a class is paused: as long as one of those above it, or itself.
local function paused_until(class)
  local at = 0
  for i = class, classes_known - 1 do at = max(at, classes[i].paused) end
  return at
end

-- Returns the first of a range of names: from prefix on, and before what sorts behind all that begin with it.
local function first_of(prefix, behind)
  return call('ZRANGE', KEYS[2], '[' .. prefix, '(' .. behind, 'BYLEX', 'LIMIT', 0, 1)[1]
end

-- Returns the ticket that is due first, and when.
local function first_due()
  local name = first_of('d', 'e')
  if not name then return nil, 1 / 0 end
  local due, id = unpack('>I7c16', name, 2)
  return id, due
end

if not load(there) then return char(CORRUPT) end

-- Says that the step finds nothing to do. Then it notes nothing.
local function is_idle(begins)
  if waiting > 0 or #called > 0 or at - now > TOLERANCE then return false end
  if tickets > 0 then
    local _, due = first_due()
    if due <= begins then return false end
  end
  if doing == ENTER then return tried == 0 and not known[2] and paused_until(of_class) <= begins end
  return doing == FREE and paused_until(0) <= begins
end

local begins = max(at, now)
if is_idle(begins) then
  local lasts = call('ZSCORE', KEYS[3], me)
  return answer({
    now = begins, answer = doing == ENTER and GO or NONE, gone = not lasts or tonumber(lasts) < begins,
    due = 0, waiting = 0, ahead = 0, calls = {},
  })
end
