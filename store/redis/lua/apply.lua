#!lua
-- Decides a batch of steps of plain charges and give-backs, each on its own: a step that cannot be
-- written whole is not written at all.
--
-- The twin of package limit and of store/memory/decide.go: same names, same order. The conformance
-- suite holds the three equal. The shebang line makes Redis refuse the whole script before its
-- first write when memory is full or this node is no master.
--
-- KEYS     the counters, one for each op of each step in order (a key may come more than once).
--          A counter is a string holding an integer; its window is part of its name.
-- ARGV[1]  the steps, little-endian:
--            step  ops uint16, flags uint8 (1 every op is a charge),
--                  from, till as float64: the instants (µs) in which all of its windows are current
--            op    flags uint8 (1 give back),
--                  amount, limit as float64, forget as float64: when the counter may go (µs)
-- ARGV[2]  now in µs; empty in production, where the clock of Redis counts. Only tests set it.
--
-- Reply    now, then for each step its code; after OK, for each op what is used,
--          or −1 − used where the op's own limit refuses.

local OK, AGAIN, CORRUPT = 0, 1, 2
local MAX_AMOUNT = 9007199254740991 -- 2^53 − 1: every integer up to here is exact
local STEP, OP, OP_SIZE = '<I2Bdd', '<Bddd', 25

local unpack, floor = struct.unpack, math.floor
local call, pcall = redis.call, redis.pcall

local now = tonumber(ARGV[2])
local standing = now ~= nil -- a test's clock may stand still while the time to live runs
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- The reply, and how long it is: counting it anew for every number would cost more than the rest.
local out, length = { now }, 1

-- Milliseconds until a counter may be forgotten.
local function time_to_live(forget)
  local ttl = floor((forget - now) / 1000) + 1
  return standing and ttl + 3600000 or ttl
end

local function add(used, more)
  local sum = used + more
  return sum < MAX_AMOUNT and sum or MAX_AMOUNT
end

-- Counts amount on key. Returns what is used then, and, where that had to be pinned, what it was
-- before. Returns nil, and leaves the key as it is, if that is no counter of ours.
local function increment(key, amount)
  local used = pcall('INCRBY', key, amount)
  if type(used) ~= 'number' then return nil end
  if used >= amount and used <= MAX_AMOUNT then return used end
  local before = call('DECRBY', key, amount)
  if before < 0 or before > MAX_AMOUNT then return nil end
  call('SET', key, string.format('%.0f', MAX_AMOUNT), 'KEEPTTL')
  return MAX_AMOUNT, before
end

-- Takes back the first `written` charges of a step of plain charges, the last one first.
local function undo(steps, pos, first, written, pinned)
  for i = written, 1, -1 do
    local key = KEYS[first + i]
    local _, amount = unpack(OP, steps, pos + (i - 1) * OP_SIZE)
    if pinned[i] then
      call('SET', key, string.format('%.0f', pinned[i]), 'KEEPTTL')
    elseif call('DECRBY', key, amount) == 0 then
      call('DEL', key)
    end
  end
end

-- A step of plain charges only: counting is judging, so one command an op does it.
local function charge_all(steps, pos, first, n)
  local began, pinned = length, nil
  length = length + 1
  out[length] = OK
  for i = 1, n do
    local key = KEYS[first + i]
    local _, amount, limit, forget = unpack(OP, steps, pos + (i - 1) * OP_SIZE)
    local used, before = increment(key, amount)
    if not used then
      undo(steps, pos, first, i - 1, pinned or {})
      for j = began + 2, length do out[j] = nil end
      length = began + 1
      out[length] = CORRUPT
      return
    end
    if used == amount then call('PEXPIRE', key, time_to_live(forget)) end
    if before then
      pinned = pinned or {}
      pinned[i] = before
    end
    length = length + 1
    out[length] = used > limit and -1 - used or used
  end
end

-- Returns what is stored under key: 0 if absent, nil if it is no counter.
local function load(key)
  local stored = pcall('GET', key)
  if not stored then return 0 end
  if type(stored) ~= 'string' or not (stored == '0' or stored:find('^[1-9]%d*$')) then return nil end
  local used = tonumber(stored)
  return used <= MAX_AMOUNT and used or nil
end

-- A step with other ops too: checks (charges of 0) and give-backs.
local function decide(steps, pos, first, n)
  length = length + 1
  out[length] = OK
  local stored, used = {}, {}
  for i = 1, n do
    local key = KEYS[first + i]
    if not stored[key] then
      stored[key] = load(key)
      if not stored[key] then
        out[length] = CORRUPT
        return
      end
      used[key] = stored[key]
    end
  end
  for i = 1, n do
    local key = KEYS[first + i]
    local flags, amount, limit, forget = unpack(OP, steps, pos + (i - 1) * OP_SIZE)
    local refused = false
    if flags == 1 then
      used[key] = used[key] > amount and used[key] - amount or 0
    else
      used[key] = add(used[key], amount)
      refused = used[key] > limit
    end
    if used[key] ~= stored[key] then
      call('SET', key, string.format('%.0f', used[key]), 'PX', time_to_live(forget))
      stored[key] = used[key]
    end
    length = length + 1
    out[length] = refused and -1 - used[key] or used[key]
  end
end

local steps, pos, first = ARGV[1], 1, 0
local size = #steps
while pos <= size do
  local n, flags, from, till
  n, flags, from, till, pos = unpack(STEP, steps, pos)
  if now < from or now >= till then
    length = length + 1
    out[length] = AGAIN -- a window has ended since the caller looked at its clock: write nothing
  elseif flags == 1 then
    charge_all(steps, pos, first, n)
  else
    decide(steps, pos, first, n)
  end
  first = first + n
  pos = pos + n * OP_SIZE
end
return out
