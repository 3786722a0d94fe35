-- Steps of plain charges only: counting is judging, so one command an op decides it.
--
--   op   flags uint8 (unused), amount, limit, forget as float64: when the counter may go (µs)

local PLAIN, PLAIN_SIZE = '<Bddd', 25

-- Counts amount on key. Returns what is used then, and, where that had to be pinned, what it was
-- before. Returns nil, and leaves the key as it is, if that is no counter of ours; and why, if it could not
-- be counted on.
local function increment(key, amount)
  local used = pcall('INCRBY', key, amount)
  if type(used) ~= 'number' then return nil, not foreign(used) and used.err:sub(1, 1000) or nil end
  if used >= amount and used <= MAX_AMOUNT then return used end
  local before = call('DECRBY', key, amount)
  if before < 0 or before > MAX_AMOUNT then return nil end
  call('SET', key, string.format('%.0f', MAX_AMOUNT), 'KEEPTTL')
  return MAX_AMOUNT, before
end

-- Takes back the first `written` charges of a step, the last one first.
local function undo(pos, first, written, pinned)
  for i = written, 1, -1 do
    local key = KEYS[first + i]
    local _, amount = unpack(PLAIN, steps, pos + (i - 1) * PLAIN_SIZE)
    if pinned[i] then
      call('SET', key, string.format('%.0f', pinned[i]), 'KEEPTTL')
    elseif call('DECRBY', key, amount) == 0 then
      call('DEL', key)
    end
  end
end

-- Decides a step of n plain charges that begins at pos, and returns where it ends.
local function charge_all(pos, first, n)
  local began, pinned = length, nil
  length = length + 1
  reply[length] = char(OK)
  for i = 1, n do
    local key = KEYS[first + i]
    local _, amount, limit, forget = unpack(PLAIN, steps, pos + (i - 1) * PLAIN_SIZE)
    local used, before = increment(key, amount)
    if not used then
      undo(pos, first, i - 1, pinned or {})
      for j = began + 2, length do reply[j] = nil end
      length = began + 1
      reply[length] = before and char(FAILED) .. pack('<I2', #before) .. before or char(CORRUPT)
      break
    end
    if used == amount then call('PEXPIRE', key, time_to_live(forget)) end
    if before then
      pinned = pinned or {}
      pinned[i] = before
    end
    length = length + 1
    reply[length] = pack('<d', used > limit and -1 - used or used)
  end
  return pos + n * PLAIN_SIZE
end
