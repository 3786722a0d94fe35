-- Leases: a string each, kept until store.Retention after they are due.
--
--   version uint8 (1), flags uint8, due float64, request that opened it and request that settled it 8
--   bytes each, note with uint16 length, holds uint16: how many; each hold: key of its bucket with uint32
--   length, algorithm uint8, window float64, calendar with uint8 length, class uint8, member with uint8
--   length; and, if flags say so, with uint16 length what it has added to its row of usage (rows.lua)
--
-- In a cluster each shard has one with the holds that lie there, and what was added to the row, if that lies
-- there; and the lease's own shard has a directory: one without either. Behind each is the transaction that made
-- the directory, 16 bytes: it tells the lease from another one of the same id that is forgotten. Behind that a
-- directory has uint8 how many steps have claimed it and not said that they were refused, their transactions, 16
-- bytes each, and the shards, uint16 each.

local LEASE, LEASE_HOLD = '<BBdc8c8I2c0I2', '<I4c0BdBc0BBc0'
local OPENED, SETTLED, LAPSED, ADDED = 1, 2, 4, 8
local RETENTION = 86400000000
local NO_REQUEST = string.rep('\0', 8)

-- Returns the lease that is stored under key; nil if there is none, or no more.
local function load_lease(key)
  local raw = pcall('GET', key)
  if not raw then return nil end
  if type(raw) ~= 'string' or raw:byte() ~= 1 then unreadable(raw) end
  local l = { holds = {} }
  local _, flags, count, pos
  _, flags, l.due, l.opened_by, l.settled_by, l.note, count, pos = unpack(LEASE, raw)
  if now >= l.due + RETENTION then return nil end
  l.opened, l.settled, l.lapsed = has(flags, OPENED), has(flags, SETTLED), has(flags, LAPSED)
  for i = 1, count do
    local key_of, algorithm, window, calendar, class, member
    key_of, algorithm, window, calendar, class, member, pos = unpack(LEASE_HOLD, raw, pos)
    local h = parse_hold(member)
    h.key, h.class = key_of, class
    h.spec = {
      algorithm = algorithm, arithmetic = arithmetic(algorithm), limit = h.limit, window = window, calendar = calendar,
    }
    l.holds[i] = h
  end
  if has(flags, ADDED) then l.added, pos = unpack('<I2c0', raw, pos) end
  if pos <= #raw then
    local claims = pos + TRANSACTION_SIZE
    l.made_by = raw:sub(pos, claims - 1)
    if claims <= #raw then
      local shards = claims + 1 + raw:byte(claims) * TRANSACTION_SIZE
      l.claims, l.shards = raw:sub(claims + 1, shards - 1), raw:sub(shards)
    end
  end
  return l
end

local function save_lease(key, l)
  local flags = (l.opened and OPENED or 0) + (l.settled and SETTLED or 0) + (l.lapsed and LAPSED or 0)
    + (l.added and ADDED or 0)
  local note = l.note or ''
  local parts = { pack('<BBdc8c8I2', 1, flags, l.due, l.opened_by, l.settled_by, #note) .. note .. pack('<I2', #l.holds) }
  for i, h in ipairs(l.holds) do
    local s = h.spec
    local calendar = s.calendar or ''
    parts[i + 1] = pack('<I4', #h.key) .. h.key .. pack('<BdB', s.algorithm, s.window, #calendar) .. calendar
      .. char(h.class, #h.member) .. h.member
  end
  if l.added then parts[#parts + 1] = pack('<I2', #l.added) .. l.added end
  if l.made_by then parts[#parts + 1] = l.made_by end
  if l.shards then parts[#parts + 1] = char(#l.claims / TRANSACTION_SIZE) .. l.claims .. l.shards end
  call('SET', key, table.concat(parts), 'PX', time_to_live(l.due + RETENTION))
end

-- Finds out what the lease of the step was before. Returns what becomes of it if the step admits.
local function recall(step)
  local asked = step.lease
  local known = load_lease(asked.key)
  if known and asked.made_by and known.made_by ~= asked.made_by then known = nil end
  if not known and asked.made_by and asked.action == RENEW and step.share then
    -- The directory has said that it lives. In this shard it has nothing yet but what it is going to add to its row.
    known = { due = now, opened_by = NO_REQUEST, settled_by = NO_REQUEST, holds = {}, made_by = asked.made_by }
  end
  asked.known = known
  if not known then return asked.action == OPEN and NONE or IS_UNKNOWN end
  asked.found = known.note
  local ended = known.settled or known.lapsed or now >= known.due
  if asked.action == LOOK then
    return known.settled and IS_SETTLED or ended and IS_LAPSED or IS_OPENED
  elseif asked.action == RENEW then
    -- That the lease lives a directory has said. In a shard that has not heard of it before, it may have been due.
    if asked.made_by then ended = known.lapsed end
    asked.renews = not (known.settled or ended)
    return known.settled and IS_SETTLED or ended and IS_LAPSED or IS_RENEWED
  elseif asked.action == OPEN then
    if not (known.opened or ended) and asked.made_by then return NONE end -- a renewal was here first
    -- That the request is the same a directory has said. In a shard that it had not reached when the lease was
    -- settled, it is over all the same.
    local same = known.opened and known.opened_by == asked.request or asked.made_by and not known.opened
    if not same then error({ code = CONFLICT }) end
  elseif asked.action == SETTLE then
    if not known.settled then return ended and IS_CORRECTED or IS_SETTLED end
    if known.settled_by ~= asked.request then error({ code = CONFLICT }) end
  elseif not ended then
    return IS_LAPSED
  end
  return IS_REPLAYED
end

-- Returns the holds that the step would end or renew.
local function ends(step)
  local lease = step.lease
  if not lease.known or lease.action == OPEN or lease.action == LOOK or lease.action == RENEW and not lease.renews then
    return NOTHING
  end
  return lease.known.holds
end

-- Returns what lease.actual says of a hold; nil if it is not known.
local function actual_of_class(lease, h)
  local of_class = lease.actual[h.class + 1]
  return of_class and of_class >= 0 and of_class or nil
end

-- Returns what was really used of a hold: what the settle ops on its bucket say, else lease.actual.
local function actual(step, h)
  local sum
  for i = 1, step.n do
    local op = step.ops[i]
    if op.kind == SETTLE_OP and step.buckets[i] == h.bucket then sum = add(sum or 0, op.amount) end
  end
  return sum or actual_of_class(step.lease, h) or h.lapse
end

-- Replaces what the holds of the lease have counted by what used says of each.
local function end_holds(step, used)
  for _, h in ipairs(step.lease.known.holds) do
    local b = h.bucket
    if remove(b, h.member) then
      settle(b.spec, b, b.now, h, used(step, h))
    else -- it has lapsed; before it was due, if the clock has stepped back since
      correct(b.spec, b, b.now, h, h.lapse, used(step, h))
    end
    b.wrote = true
  end
end

-- Moves a lease on to when a step wants it to be due, which is not before it was.
local function move_on(l, asked) l.due = max(l.due, now + asked.lasts) end

-- What a lease keeps of what it has added to its row: nothing where that is nothing.
local function kept(asked)
  local added = asked.added or asked.known and asked.known.added
  return added ~= '' and added or nil
end

-- Renews the lease of the step: its holds move on with it, and grow to what was used so far.
local function renew(step)
  local asked = step.lease
  local known = asked.known
  move_on(known, asked)
  local due_text = string.format('%.0f', known.due)
  for _, h in ipairs(known.holds) do
    local b, lapse = h.bucket, h.lapse
    if h.spec.algorithm ~= CONCURRENCY then lapse = max(lapse, actual_of_class(asked, h) or 0) end
    if not renew_hold(b, h, known.due, due_text, lapse) then
      -- It has lapsed: before it was due, if the clock has stepped back since, or here and not in the directory.
      correct(b.spec, b, b.now, h, h.lapse, lapse)
      h.lapse = lapse
      h.member = hold_member(h)
    end
    b.wrote = true
  end
  known.note = asked.note or known.note
  known.added = kept(asked)
  save_lease(asked.key, known)
end

-- Returns the lease that a step opens, without holds as yet.
local function open(asked)
  local due = now + asked.lasts
  return {
    due = due, due_text = string.format('%.0f', due), opened = true, opened_by = asked.request, settled_by = NO_REQUEST,
    holds = {}, made_by = asked.made_by, note = asked.note, added = kept(asked),
  }
end

-- Ends the lease of the step; state says how.
local function end_lease(step, state)
  local asked = step.lease
  if asked.action == LOOK or asked.action == RENEW then return end
  local settles = asked.action == SETTLE
  -- Also a step that lets a lease lapse may write in a shard in which the lease has nothing: once.
  if state == IS_UNKNOWN and (settles or asked.made_by) then
    save_lease(asked.key, {
      due = asked.made_by and now + asked.lasts or now, made_by = asked.made_by, settled = settles, lapsed = not settles,
      opened_by = NO_REQUEST, settled_by = asked.request, holds = {}, note = asked.note,
    })
  elseif state == IS_SETTLED or state == IS_CORRECTED then
    end_holds(step, actual)
    local known = asked.known
    if asked.made_by then move_on(known, asked) end -- a renewal may not have come here
    known.settled, known.settled_by, known.holds, known.note = true, asked.request, {}, asked.note or known.note
    known.added = nil
    save_lease(asked.key, known)
  elseif state == IS_LAPSED then
    end_holds(step, function(_, h) return h.lapse end)
    asked.known.lapsed = true
    if asked.made_by then move_on(asked.known, asked) end
    save_lease(asked.key, asked.known)
  end
end

-- Adds shards to those of a lease, each once.
local function add_shards(known, more)
  for i = 1, #more, 2 do
    local shard, there = more:sub(i, i + 1), false
    for j = 1, #known, 2 do there = there or known:sub(j, j + 1) == shard end
    if not there then known = known .. shard end
  end
  return known
end

-- Notes in a lease's directory that a step opens or ends it, and in which shards it leaves a record. A repeat
-- changes nothing but who has claimed it: there is no lease after all when all of them were refused.
local function claim(step)
  local state = recall(step)
  local asked = step.lease
  local l, made = asked.known, not asked.known
  if state == NONE then
    state = IS_OPENED
    l = { due = now + asked.lasts, opened = true, opened_by = asked.request, note = asked.note }
  elseif state == IS_UNKNOWN then
    l = { due = now, opened_by = NO_REQUEST, note = asked.note }
  elseif asked.action ~= LOOK and state ~= IS_REPLAYED then
    l.shards = add_shards(l.shards, step.shards)
    l.note = asked.note or l.note
  end
  if made then l.holds, l.settled_by, l.made_by, l.claims, l.shards = {}, NO_REQUEST, step.transaction, '', step.shards end
  if asked.action == LOOK then return state, l end
  if asked.action == RENEW then
    if state == IS_RENEWED then
      move_on(l, asked)
      l.note = asked.note or l.note
      save_lease(asked.key, l)
    end
    return state, l
  end
  if state == IS_LAPSED then
    l.lapsed = true
  elseif asked.action == SETTLE then
    l.settled, l.settled_by = true, asked.request
  end
  l.claims = with(l.claims, step.transaction)
  if state ~= IS_UNKNOWN or asked.action == SETTLE then save_lease(asked.key, l) end
  return state, l
end

-- Takes the claim of a step back that was refused. When that was the last one, the lease was not opened.
local function disclaim(step)
  local l = load_lease(step.lease.key)
  if not l then return end
  local others = without(l.claims, step.transaction)
  if #others == #l.claims then return end
  l.claims = others
  if others == '' then call('DEL', step.lease.key) else save_lease(step.lease.key, l) end
end

return {
  lapse = lapse, earliest = earliest, hold = hold,
  recall = recall, ends = ends, renew = renew, open = open, save_lease = save_lease, end_lease = end_lease,
  claim = claim, disclaim = disclaim,
  read_pending = read_pending, promise_all = promise_all, join = join, redeem_all = redeem_all,
  missing = missing,
}
