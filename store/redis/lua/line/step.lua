-- What a step does: the twin of lane/line.go.

local CALL_LASTS, WAITER_LASTS, ASIDE_LASTS = 3000000, 3000000, 15000000 -- µs: lane.CallLasts …
local AT_ONCE = 64

-- Makes the line ready for a step.
local function begin()
  for i = classes_known, classes_now - 1 do
    classes[i] = { waiting = 0, tickets = 0, subjects = 0, epoch = 0, paused = 0, since = 0, lag = 0, virtual = 0 }
  end
  classes_known = max(classes_known, classes_now)
  if at - now > TOLERANCE then
    for i = 0, classes_known - 1 do classes[i].paused, classes[i].since = 0, min(classes[i].since, now) end
    for i = 1, #called do
      local t = ticket_of(called[i].id)
      t.called = min(t.called, now)
      called[i].called = t.called
    end
    table.sort(called, by_call)
    at, admitted = now, min(admitted, now)
  end
  at = max(at, now)
end

-- Takes a ticket out of the line. One that was called has used its turn.
local function remove(t)
  if t.where == QUEUED then
    unqueue(t)
  elseif t.where == CALLED then
    local place = place_of(t)
    if place then table.remove(called, place) end
  end
  unrank(due_name(t))
  t.over, tickets = true, tickets - 1
  let_go(t)
end

local function leave(t)
  if t.where == CALLED then
    take_back(t)
    credit = min(MAX_CALLED, credit + 1)
  end
  remove(t)
end

local function set_aside(t)
  t.where = ASIDE
  set_due(t, min(t.till, at + ASIDE_LASTS))
end

-- Sets a ticket aside that has not had its turn, wherever it is.
local function keep(t)
  if t.where == ASIDE then return end
  if t.where == CALLED then
    take_back(t)
    credit = min(MAX_CALLED, credit + 1)
  else
    unqueue(t)
  end
  set_aside(t)
end

-- Ends what is due, and returns how much more work the step may do for others.
local function end_due()
  local work = AT_ONCE
  while work > 0 and tickets > 0 do
    local id, due = first_due()
    if not id then error(LOST, 0) end
    if due > at then break end
    leave(ticket_of(id))
    work = work - 1
  end
  while work > 0 and #called > 0 and called[1].called + CALL_LASTS <= at do
    local t = ticket_of(called[1].id)
    forget_waiter(t.waiter)
    take_back(t)
    set_aside(t)
    credit = min(MAX_CALLED, credit + 1)
    work = work - 1
  end
  return work
end

local function add_call(out, id, waiter)
  local n = #out.calls
  out.calls[n + 1], out.calls[n + 2] = id, waiter
end

-- Has a waiter wait for a ticket that is in the line.
local function come_for(t, out)
  t.waiter, out.answer = me, WAITS
  if t.where == CALLED then
    local again = called[place_of(t)]
    t.called, again.called, again.waiter = at, at, me
    table.sort(called, by_call)
    add_call(out, t.id, me)
  elseif t.where == ASIDE then
    set_due(t, t.till)
    queue(t)
  end
end

-- Returns the step's ticket, if it is in the line.
local function own()
  local t = all_tickets[of_ticket]
  return t and not t.over and t
end

-- Returns how many would have their turn before a class's last one.
local function ahead(class)
  local n = 0
  for i = 0, classes_known - 1 do
    if weighted or i >= class then n = n + classes[i].waiting end
  end
  return n
end

local function enter(out)
  local c = classes[of_class]
  if tried == 1 then c.paused, credit = max(c.paused, till), 0 end
  local t = own()
  if t then return come_for(t, out) end
  if tried == 0 and waiting == 0 and #called == 0 and paused_until(of_class) <= at then
    out.answer = GO
    return
  end
  local s = subject_of(of_class, of_subject)
  if tickets >= most or s.held >= most_of_subject then
    out.answer = tickets >= most and FULL or FULL_FOR_SUBJECT
    out.ahead = ahead(of_class)
    return
  end
  out.answer = WAITS
  sequence, tickets = sequence + 1, tickets + 1
  t = {
    id = of_ticket, class = of_class, subject = of_subject, waiter = me, cost = cost, sequence = sequence,
    till = at + wait, due = at + wait, starts = 0, first = 0, called = 0,
  }
  if all_tickets[of_ticket] then t.packed = all_tickets[of_ticket].packed end
  all_tickets[of_ticket] = t
  rank(due_name(t))
  s.held, c.tickets = s.held + 1, c.tickets + 1
  queue(t)
end

-- Notes that a ticket has had its turn now.
local function note()
  if admitted > 0 then
    local between = at - admitted
    pace = max(1, pace == 0 and between or pace + floor((between - pace) / 8))
  end
  admitted = max(1, at)
end

local function conclude(out)
  local t = own()
  if not t then
    out.answer = UNKNOWN
    return
  end
  local c = classes[t.class]
  if doing == ADMITTED then
    if t.where ~= CALLED then charge(t) end -- it says so late
    remove(t)
    served(t)
    note()
    credit = max(0, room - #called)
    if room == 0 then c.paused = max(c.paused, till) end
  elseif doing == REFUSED then
    out.answer = WAITS
    if not freed then c.paused = max(c.paused, till) end
    credit = 0
    if t.where == CALLED then take_back(t) end
    if t.where ~= QUEUED then
      set_due(t, t.till)
      queue(t)
    end
  elseif t.waiter ~= me then
    return -- it is waited for
  elseif keeps == 1 then
    keep(t)
  else
    leave(t)
  end
end

-- Lets so many be called who have been kept waiting. Those who try already go before them: the room is theirs.
local function free()
  for i = 0, classes_known - 1 do classes[i].paused = 0 end
  freed = #called > 0
  if not freed then credit = min(MAX_CALLED, credit + room) end
end

-- Calls those whose turn it is. Returns whether these were all.
local function call_next(work, out)
  while #called < MAX_CALLED and (credit > 0 or #called == 0) do
    local class = next_class()
    if not class then break end
    local t = ticket_of(head_of(class).ticket)
    if is_gone(t.waiter) then
      if work == 0 then return false end
      work = work - 1
      unqueue(t)
      set_aside(t)
    else
      take(t)
      credit = max(0, credit - 1)
      add_call(out, t.id, t.waiter)
    end
  end
  return work > 0
end

-- Returns when the first class of those that wait is no longer paused.
local function resumes()
  local first = 0
  for i = 0, classes_known - 1 do
    local paused = paused_until(i)
    if classes[i].waiting > 0 and (first == 0 or paused < first) then first = paused end
  end
  return first
end

-- Says how the line is.
local function finish(all, out)
  if waiting == 0 then
    credit = 0
    if #called == 0 then admitted, freed = 0, false end
  end
  out.now, out.waiting = at, waiting
  if not all then
    out.due = at
  elseif #called > 0 then
    out.due = called[1].called + CALL_LASTS
  elseif waiting > 0 then
    out.due = resumes()
  end
end

-- Performs the step, and returns what follows.
local function perform()
  all_tickets, all_subjects, since_when = {}, {}, {}
  if there and known[2] then read_ticket(of_ticket, known[2]) end
  begin()
  local work = end_due()
  local out = { answer = NONE, gone = is_gone(me), due = 0, waiting = 0, ahead = 0, calls = {} }
  see_waiter(me, at + WAITER_LASTS)
  if doing == ENTER then
    enter(out)
  elseif doing == FREE then
    free()
  elseif doing == BEAT then
    for i = 1, #called do
      if called[i].waiter == me then add_call(out, called[i].id, me) end
    end
  else
    conclude(out)
  end
  local all = call_next(work, out)
  forget_waiters()
  finish(all, out)
  save()
  return out
end

-- Performs it in an empty line: nothing is there, or what is there is not whole.
local function perform_anew()
  call('DEL', KEYS[1], KEYS[2], KEYS[3])
  rank(WHOLE)
  there = false
  load(there)
  return perform()
end

local out
if there then
  local is_whole, result = pcall(perform)
  if not is_whole and result ~= LOST then error({ err = result }) end
  out = is_whole and result or perform_anew()
else
  out = perform_anew()
end

-- Tells the waiters of calls, each of its own. The one whose step it is has them in the answer.
for i = 1, #out.calls, 2 do
  local ticket, waiter = out.calls[i], out.calls[i + 1]
  if waiter ~= me then
    local hex = waiter:gsub('.', function(c) return string.format('%02x', c:byte()) end)
    redis.pcall('PUBLISH', ARGV[4] .. hex, ticket .. ARGV[5]) -- a hint: who does not hear it asks
  end
end
return answer(out)
