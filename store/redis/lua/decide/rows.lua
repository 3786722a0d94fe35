-- What steps report of usage, added up: store.Row. A step with rows has behind its ops
--
--   rows        uint8: how many; each: uint8 how many additions follow, each column uint8 and amount float64; the
--               owner with uint16 length; uint8: how many sums it adds to; each:
--                 which addition uint8, the first is 0, or ALL; when its key may go (µs) as float64; field with uint16
--                 length
--
-- and behind its other keys one for each of these sums. A sum of all is in a hash, under the field: all columns that
-- have one, each as uint8, and the sum as int56. A sum of one addition is the score of the owner in a sorted set,
-- which is less than 0 for who has used something: the first are those who have used most, by name.

local ALL, COLUMN_SIZE = 255, 8

-- The sums of the batch, by key: each is read once, and written behind the last step: most steps add to the same sums
-- of their group. Of one key they are chained.
local known = {}
local changed, changed_count = {}, 0

local function pinned(sum) return max(-MAX_AMOUNT, min(sum, MAX_AMOUNT)) end

-- Formats of so many columns: of sums, and of additions.
local sum_formats, addition_formats = {}, {}
local function format_of(formats, one, n)
  local format = formats[n]
  if not format then
    format = '<' .. one:rep(n)
    formats[n] = format
  end
  return format
end

-- Finds a sum, or makes one that has not been read.
local function find_sum(key, name, which, forget)
  local first = known[key]
  local s = first
  while s do
    if s.name == name then return s end
    s = s.next
  end
  s = { key = key, name = name, all = which == ALL, forget = forget, value = false, changed = false, next = first }
  known[key] = s
  return s
end

-- Reads the rows of a step at pos; their first key is the one behind number first. Returns by turns a sum, which of the
-- additions it is of, and these; and where they end.
local function parse_rows(pos, first)
  local parts, n = {}, 0
  local rows = byte(steps, pos)
  pos = pos + 1
  for _ = 1, rows do
    local count = byte(steps, pos)
    local additions = { unpack(format_of(addition_formats, 'Bd', count), steps, pos + 1) }
    local owner, of_row
    owner, of_row, pos = unpack('<I2c0B', steps, additions[2 * count + 1])
    for _ = 1, of_row do
      local which, forget, field
      which, forget, field, pos = unpack('<BdI2c0', steps, pos)
      first = first + 1
      parts[n + 1] = find_sum(KEYS[first], which == ALL and field or owner, which, forget)
      parts[n + 2], parts[n + 3] = which, additions
      n = n + 3
    end
  end
  return parts, pos
end

-- Reads a sum: of a hash by turns a column and what is in it; else the score.
local function read_sum(s)
  if not s.all then
    local raw = pcall('ZSCORE', s.key, s.name)
    local score = raw and (type(raw) == 'string' and tonumber(raw)) or 0
    if raw and (type(raw) ~= 'string' or score % 1 ~= 0 or pinned(score) ~= score) then unreadable(raw) end
    s.value = score
    return
  end
  local raw = pcall('HGET', s.key, s.name)
  if not raw then
    s.value = {}
    return
  end
  if type(raw) ~= 'string' or #raw % COLUMN_SIZE ~= 0 then unreadable(raw) end
  local columns = { unpack(format_of(sum_formats, 'Bi7', #raw / COLUMN_SIZE), raw) }
  columns[#columns] = nil -- where it ends
  s.value = columns
end

-- Reads what the rows of a step add to.
local function look_up(parts)
  for i = 1, #parts, 3 do
    local s = parts[i]
    if not s.value then read_sum(s) end
  end
end

local function add_columns(columns, additions)
  local count = #columns
  for i = 1, #additions - 1, 2 do
    local column, at = additions[i], i
    if columns[at] ~= column or at > count then -- mostly they come in the order of the first time
      at = 1
      while at <= count and columns[at] ~= column do at = at + 2 end
      if at > count then
        columns[at], columns[at + 1], count = column, 0, at + 1
      end
    end
    columns[at + 1] = pinned(columns[at + 1] + additions[i + 1])
  end
end

-- Writes what has changed.
local function save_sums()
  for i = 1, changed_count do
    local s, made = changed[i], nil
    if s.all then
      made = call('HSET', s.key, s.name, pack(format_of(sum_formats, 'Bi7', #s.value / 2), _G.unpack(s.value)))
    else
      made = call('ZADD', s.key, s.value, s.name)
    end
    if made == 1 then call('PEXPIRE', s.key, time_to_live(s.forget)) end
  end
end

-- Adds to it.
local function add_up(parts)
  for i = 1, #parts, 3 do
    local s, which, additions = parts[i], parts[i + 1], parts[i + 2]
    if s.all then
      add_columns(s.value, additions)
    else
      s.value = pinned(s.value - additions[2 * which + 2])
    end
    if not s.changed then
      s.changed = true
      changed_count = changed_count + 1
      changed[changed_count] = s
    end
  end
  at_end = save_sums
end

return { parse = parse_rows, look_up = look_up, add_up = add_up }
