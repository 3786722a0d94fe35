-- The main loop. A step begins with
--
--   ops uint16, flags uint8 (CHARGES: plain charges only; else see decide/step.lua),
--   from, till as float64: the instants (µs) in which all its aligned windows are current

local STEP, CHARGES = '<I2Bdd', 1

local pos, first, size = 1, 0, #steps
local decide
while pos <= size do
  local n, flags, from, till
  n, flags, from, till, pos = unpack(STEP, steps, pos)
  local current = now >= from and now < till
  if flags ~= CHARGES then
    decide = decide or strict()
    pos, first = decide(pos, first, n, flags, current)
  else
    if current then
      pos = charge_all(pos, first, n)
    else
      -- A window has ended since the caller looked at its clock: write nothing.
      length = length + 1
      reply[length] = char(AGAIN, 0)
      pos = pos + n * PLAIN_SIZE
    end
    first = first + n
  end
end

if at_end then at_end() end

-- Without steps somebody asks whether they would run: see permissions.go. What the user may not do is named,
-- one a line, behind now. Redis does not count the words, and reads those that a command has to have.
if size == 0 and redis.acl_check_cmd then
  local places = { ['*'] = ARGV[3], ['&'] = ARGV[4] }
  for i = 5, #ARGV do
    local words = {}
    for word in ARGV[i]:gmatch('%S+') do words[#words + 1] = places[word] or word end
    local known, may = protected(redis.acl_check_cmd, _G.unpack(words))
    if known and not may then reply[#reply + 1] = words[1] .. '\n' end
  end
end
return table.concat(reply)
