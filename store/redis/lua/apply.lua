#!lua
-- Decides a batch of steps, each on its own: judges all of a step, then writes all or nothing.
--
-- The twin of package limit and of store/memory/decide.go: same names, same order. The conformance
-- suite holds the three equal. The shebang line makes Redis refuse the whole script before its
-- first write when memory is full or this node is no master.
--
-- KEYS     the counters, one for each op of each step in order (a key may come more than once).
--          A counter is a string holding an integer; its window is part of its name.
-- ARGV[1]  the steps, little-endian:
--            step  ops uint16, flags uint8 (1 shadow, 2 quota open, 4 every op is a plain charge)
--            op    flags uint8 (1 give back, 2 strict, 4 shadow, 8 quota),
--                  amount, limit, start, window as float64 (units, units, µs, µs)
-- ARGV[2]  now in µs; empty in production, where the clock of Redis counts. Only tests set it.
--
-- Reply    now, then for each step its code; after OK, for each op what is used,
--          or −1 − used where the op's own limit refuses.

local OK, AGAIN, CORRUPT = 0, 1, 2
local MAX_AMOUNT = 9007199254740991 -- 2^53 − 1: every integer up to here is exact

local unpack, floor = struct.unpack, math.floor
local call, pcall = redis.call, redis.pcall

local now = tonumber(ARGV[2])
local standing = now ~= nil -- a test's clock may stand still while the time to live runs
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- The op at i of the step under way; the tables are used again for every step.
local give_back, strict, shadow, quota = {}, {}, {}, {}
local amount, limit, start, window = {}, {}, {}, {}

-- Milliseconds until the counter of op i may be forgotten: its window and the grace behind it.
local function time_to_live(i)
  local grace = window[i] < 60000000 and window[i] or 60000000
  local ttl = floor((start[i] + window[i] + grace - now) / 1000) + 1
  return standing and ttl + 3600000 or ttl
end

local function add(used, more)
  local sum = used + more
  return sum < MAX_AMOUNT and sum or MAX_AMOUNT
end

local function judge(i, used)
  local asked = amount[i]
  if strict[i] and asked < 1 then asked = 1 end
  return add(used, asked) > limit[i]
end

-- Returns what op i would leave used.
local function count(i, used)
  if give_back[i] then
    return used > amount[i] and used - amount[i] or 0
  end
  return add(used, amount[i])
end

-- Returns what is stored under key: 0 if absent, nil if it is no counter.
local function load(key)
  local stored = pcall('GET', key)
  if not stored then return 0 end
  if type(stored) ~= 'string' or not stored:find('^%d+$') then return nil end
  local used = tonumber(stored)
  return used <= MAX_AMOUNT and used or nil
end

-- Plain charges only: counting is judging, so one command an op does it.
local function charge_all(first, n, out)
  local at = #out
  for i = 1, n do
    local key = KEYS[first + i]
    local used = pcall('INCRBY', key, amount[i])
    -- A double above 2^53 may be off by one, hence the + 1.
    if type(used) ~= 'number' or used < amount[i] or used - amount[i] > MAX_AMOUNT + 1 then
      -- Not a counter of ours: take back what this step has written.
      local written = type(used) == 'number' and i or i - 1
      for j = 1, written do
        if call('DECRBY', KEYS[first + j], amount[j]) == 0 then call('DEL', KEYS[first + j]) end
      end
      for j = at, #out do out[j] = nil end
      out[at] = CORRUPT
      return
    end
    if used == amount[i] then call('PEXPIRE', key, time_to_live(i)) end
    if used > MAX_AMOUNT then
      call('SET', key, string.format('%.0f', MAX_AMOUNT), 'KEEPTTL')
      used = MAX_AMOUNT
    end
    out[at + i] = used > limit[i] and -1 - used or used
  end
end

local function decide(first, n, step_shadow, quota_open, out)
  local at = #out
  local stored, tentative = {}, {}
  for i = 1, n do
    local key = KEYS[first + i]
    if not stored[key] then
      local used = load(key)
      if not used then
        out[at] = CORRUPT
        return
      end
      stored[key], tentative[key] = used, used
    end
  end

  local refused_by_limit, any_strict = false, false
  local quotas, quotas_spent = quota_open and 1 or 0, 0
  local refusals = {}
  for i = 1, n do
    local key = KEYS[first + i]
    local refused = not give_back[i] and judge(i, tentative[key])
    refusals[i] = refused
    if quota[i] then
      quotas = quotas + 1
      if refused and not shadow[i] then quotas_spent = quotas_spent + 1 end
    elseif refused and not shadow[i] then
      refused_by_limit = true
    end
    any_strict = any_strict or strict[i]
    tentative[key] = count(i, tentative[key])
    out[at + i] = tentative[key]
  end
  local refuses = (refused_by_limit or (quotas > 0 and quotas_spent == quotas)) and not step_shadow

  if refuses and any_strict then
    for key, used in pairs(stored) do tentative[key] = used end
    for i = 1, n do
      local key = KEYS[first + i]
      if give_back[i] or not strict[i] then tentative[key] = count(i, tentative[key]) end
      out[at + i] = tentative[key]
    end
  end

  for i = 1, n do
    local key = KEYS[first + i]
    if tentative[key] ~= stored[key] then
      call('SET', key, string.format('%.0f', tentative[key]), 'PX', time_to_live(i))
      stored[key] = tentative[key]
    end
    if refusals[i] then out[at + i] = -1 - out[at + i] end
  end
end

local steps, pos, first, out = ARGV[1], 1, 0, { now }
while pos <= #steps do
  local n, flags
  n, flags, pos = unpack('<I2B', steps, pos)
  local current = true
  for i = 1, n do
    local f
    f, amount[i], limit[i], start[i], window[i], pos = unpack('<Bdddd', steps, pos)
    give_back[i] = f % 2 >= 1
    strict[i] = f % 4 >= 2
    shadow[i] = f % 8 >= 4
    quota[i] = f >= 8
    if now < start[i] or now >= start[i] + window[i] then current = false end
  end
  if not current then
    out[#out + 1] = AGAIN -- a window has ended since the caller looked at its clock: write nothing
  else
    out[#out + 1] = OK
    if flags >= 4 then
      charge_all(first, n, out)
    else
      decide(first, n, flags % 2 >= 1, flags % 4 >= 2, out)
    end
  end
  first = first + n
end
return out
