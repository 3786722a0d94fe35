-- What steps report of usage, added up: store.Row. A step with rows has behind its ops
--
--   rows        uint8: how many; uint8: which of them is of the lease, 0 for none; each: uint8 how many additions
--               follow, each column uint8 and amount float64; the owner with uint16 length; uint8: how many sums it
--               adds to; each: which addition uint8, the first is 0 (of a row of the lease the column), or ALL; when
--               its key may go (µs) as float64; field with uint16 length
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
-- additions it is of, and these; the same of the row of the lease, if there is one, and what that says; where the rows
-- end, and behind which key.
local function parse_rows(pos, first)
  local others, share, said = {}, nil, nil
  local rows, of_lease
  rows, of_lease, pos = unpack('<BB', steps, pos)
  for i = 1, rows do
    local parts = others
    local count = byte(steps, pos)
    local additions = { unpack(format_of(addition_formats, 'Bd', count), steps, pos + 1) }
    if i == of_lease then
      parts = {}
      share, said = parts, additions
    end
    local n = #parts
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
  return others, share, said, pos, first
end

-- What a lease has added to its row is kept with it: of each column that is not 0 its number as uint8, and NEGATIVE more
-- where it is less; behind that the amount, seven bits to a byte, the lowest first, 128 more in all but the last.
local NEGATIVE = 64

local function pack_share(column, amount)
  local text = char(amount < 0 and column + NEGATIVE or column)
  local rest = math.abs(amount)
  while rest >= 128 do
    text = text .. char(128 + rest % 128)
    rest = (rest - rest % 128) / 128
  end
  return text .. char(rest)
end

-- Returns by column what was added.
local function unpack_share(packed)
  local added, pos = {}, 1
  while pos <= #packed do
    local column, amount, unit = byte(packed, pos), 0, 1
    repeat
      pos = pos + 1
      local part = byte(packed, pos) or unreadable()
      amount, unit = amount + part % 128 * unit, unit * 128
    until part < 128
    if column >= NEGATIVE then column, amount = column - NEGATIVE, -amount end
    added[column], pos = amount, pos + 1
  end
  return added
end

-- Compares what the row of a lease says with what the lease has added before, which is packed; nil for nothing. Where
-- grows is set, what is less is as before. Returns parts as parse_rows does, of what is more or less than before, and
-- what the lease has added from now on, packed.
local function compare(share, said, before, grows)
  local was, is = unpack_share(before or ''), {}
  for i = 1, #said - 1, 2 do is[said[i]] = said[i + 1] end
  local additions, places, packed = {}, {}, ''
  for column = 0, 63 do
    local a, b = was[column] or 0, is[column] or 0
    if grows then b = max(a, b) end
    if a ~= b then
      places[column] = #additions / 2
      additions[#additions + 1], additions[#additions + 2] = column, pinned(b - a)
    end
    if b ~= 0 then packed = packed .. pack_share(column, b) end
  end
  additions[#additions + 1] = 0 -- behind the last, as where they end
  local parts, n = {}, 0
  for i = 1, #share, 3 do
    local which = share[i + 1]
    if which ~= ALL then which = places[which] end
    if which and #additions > 1 then
      parts[n + 1], parts[n + 2], parts[n + 3] = share[i], which, additions
      n = n + 3
    end
  end
  return parts, packed
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

return { parse = parse_rows, compare = compare, look_up = look_up, add_up = add_up }
