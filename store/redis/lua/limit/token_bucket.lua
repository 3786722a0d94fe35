-- The twin of limit/tokenbucket.go: level(t) = max(0, level − Δt·N/P); admits iff level + c ≤ B.
--
-- The floors of live holds, of limit/floors.go, lie behind the state in its key, each as four float64: entered, count,
-- rest, and how many holds have it. Read they are the string st.laid, '' where there are none; once they are needed,
-- one list of all these numbers, st.floors. Where that has changed otherwise than at its end, st.laid is nil.
local FLOOR, ONE_FLOOR, FLOOR_SIZE, MAX_FLOORS = 'dddd', '<dddd', 32, 64 -- limit.MaxFloors

-- Returns the floors of a state as a string.
local function lay(st)
  if not st.laid then st.laid = pack('<' .. string.rep(FLOOR, #st.floors / 4), _G.unpack(st.floors)) end
  return st.laid
end

-- What concerns holds. b is the arithmetic without it.
local function bucket_holds(b)
  local h = {}

  -- Levels are two numbers: units, and parts of one unit as many as the window has µs.
  local function below(count, rest, other, other_rest)
    return count < other or count == other and rest < other_rest
  end

  local function lower(count, rest, other, other_rest)
    if count < other or count == other and rest < other_rest then return count, rest end
    return other, other_rest
  end

  -- Returns one level less another one, never below 0.
  local function minus(s, count, rest, other, other_rest)
    if not below(other, other_rest, count, rest) then return 0, 0 end
    count, rest = count - other, rest - other_rest
    if rest < 0 then return count - 1, rest + s.window end
    return count, rest
  end

  local function floors(st)
    local list = st.floors
    if not list and st.laid ~= '' then
      list = { unpack('<' .. string.rep(FLOOR, #st.laid / FLOOR_SIZE), st.laid) }
      list[#list] = nil -- where unpack has ended
      st.floors = list
    end
    return list
  end

  -- Returns where in the list the floor begins that a live hold has, nil if there is none.
  local function floor_of(list, mark_entered)
    for i = list and #list - 3 or 0, 1, -4 do
      if list[i] <= mark_entered then return i end
    end
  end

  -- Takes the floor at i out of the list.
  local function take_floor(list, i)
    local n = #list
    for j = i, n - 4 do list[j] = list[j + 4] end
    for j = n, n - 3, -1 do list[j] = nil end
  end

  -- Brings the floors from place i on down to the level; equal ones become one.
  local function join_floors(st, list, i)
    local count, rest, kept, n = st.count, st.rest, i - 1, #list
    for j = i, n, 4 do
      local units, part = lower(list[j + 1], list[j + 2], count, rest)
      if kept > 0 and list[kept - 2] == units and list[kept - 1] == part then
        list[kept] = list[kept] + list[j + 3]
        i = min(i, kept - 3)
      else
        list[kept + 1], list[kept + 2], list[kept + 3], list[kept + 4] = list[j], units, part, list[j + 3]
        kept = kept + 4
      end
    end
    for j = n, kept + 1, -1 do list[j] = nil end
    if st.laid then
      local tail = pack('<' .. string.rep(FLOOR, (kept - i + 1) / 4), _G.unpack(list, i))
      st.laid = st.laid:sub(1, (i - 1) * FLOOR_SIZE / 4) .. tail
    end
  end

  -- Brings the floors down to the level, which is going to rise.
  function h.sink(st)
    local list = floors(st)
    if not list then return end
    local count, rest = st.count, st.rest
    for i = 2, #list, 4 do
      if list[i] > count or list[i] == count and list[i + 1] > rest then return join_floors(st, list, i - 1) end
    end
  end

  -- Joins the floor by which least is lost to the one before it.
  local function drop_floor(list)
    local at, least = 5, MAX_AMOUNT
    for i = 5, #list, 4 do
      local loss = min(math.abs(list[i + 1] - list[i - 3]) * list[i + 3], MAX_AMOUNT)
      if loss < least then at, least = i, loss end
    end
    list[at - 3], list[at - 2] = lower(list[at - 3], list[at - 2], list[at + 1], list[at + 2])
    list[at - 1] = list[at - 1] + list[at + 3]
    take_floor(list, at)
  end

  -- Adds the floor of a hold that is made now.
  local function lay_floor(st, count, rest)
    local list = floors(st)
    if not list then
      list = {}
      st.floors = list
    end
    local n = #list
    if n > 0 and list[n - 2] == count and list[n - 1] == rest then
      list[n] = list[n] + 1
      st.laid = nil
      return
    end
    if n == 4 * MAX_FLOORS then
      drop_floor(list)
      st.laid = nil
      n = n - 4
    end
    list[n + 1], list[n + 2], list[n + 3], list[n + 4] = st.entered, count, rest, 1
    if st.laid then st.laid = st.laid .. pack(ONE_FLOOR, st.entered, count, rest, 1) end
  end

  local function knows(st, mark_at, mark_entered) return mark_at == st.ends and mark_entered <= st.entered end

  -- Takes a hold from those that have its floor.
  local function leave_floor(st, mark_at, mark_entered)
    if not knows(st, mark_at, mark_entered) then return end
    local list = floors(st)
    local i = floor_of(list, mark_entered)
    if not i then return end
    list[i + 3] = list[i + 3] - 1
    st.laid = nil
    if list[i + 3] > 0 then return end
    if #list == 4 then
      st.floors, st.laid = nil, ''
    else
      take_floor(list, i)
    end
  end

  -- What can be left at a mark by what came in since.
  local function below_mark(st, mark_entered)
    local above = st.entered - mark_entered
    if above > st.count then return 0, 0 end
    return st.count - above, st.rest
  end

  function h.hold(s, st, now, amount)
    b.charge(s, st, now, amount)
    lay_floor(st, st.count, st.rest)
    return st.ends, st.entered
  end

  -- How much a live hold can give back at most.
  local function left(st, mark_at, mark_entered)
    if not knows(st, mark_at, mark_entered) then return 0, 0 end
    local count, rest = below_mark(st, mark_entered)
    local list = floors(st)
    local i = floor_of(list, mark_entered)
    if not i then return count, rest end
    local units, part = lower(list[i + 1], list[i + 2], st.count, st.rest)
    if below(count, rest, units, part) then return units, part end
    return count, rest
  end

  function h.counts(_, st, _, mark_at, mark_entered)
    local count, rest = left(st, mark_at, mark_entered)
    return count > 0 or rest > 0
  end

  -- Gives back amount at a mark, of what is left there.
  local function take_out(s, st, mark_entered, amount, count, rest)
    local units, part = lower(amount, 0, count, rest)
    if units == 0 and part == 0 then return end
    h.sink(st)
    count, rest = minus(s, count, rest, units, part)
    st.count, st.rest = minus(s, st.count, st.rest, units, part)
    local list = floors(st)
    if not list then return end
    local own, equal = floor_of(list, mark_entered) or 1, nil
    st.laid = nil
    for i = 1, #list, 4 do
      if i < own then
        list[i + 1], list[i + 2] = lower(list[i + 1], list[i + 2], count, rest)
      elseif part == 0 and list[i + 1] >= units then
        list[i + 1] = list[i + 1] - units
      else
        list[i + 1], list[i + 2] = minus(s, list[i + 1], list[i + 2], units, part)
      end
      if not equal and list[i - 3] == list[i + 1] and list[i - 2] == list[i + 2] then equal = i end
    end
    if equal then join_floors(st, list, equal) end
  end

  -- Gives back min(held − actual, the hold's floor).
  function h.settle(s, st, now, mark_at, mark_entered, held, actual)
    st.held = less(st.held, held)
    if actual > held then
      b.charge(s, st, now, actual - held)
    else
      take_out(s, st, mark_entered, held - actual, left(st, mark_at, mark_entered))
    end
    leave_floor(st, mark_at, mark_entered)
  end

  -- A hold that has ended has no floor any more.
  function h.correct(s, st, now, mark_at, mark_entered, charged, actual)
    if actual > charged then
      b.charge(s, st, now, actual - charged)
    elseif knows(st, mark_at, mark_entered) then
      take_out(s, st, mark_entered, charged - actual, below_mark(st, mark_entered))
    end
  end

  -- What others have in the bucket counts as if it came in after the more.
  function h.grow(s, st, now, mark_at, mark_entered, more)
    local count, rest = left(st, mark_at, mark_entered)
    local others, part = minus(s, st.count, st.rest, count, rest)
    if part > 0 then others = add(others, 1) end
    leave_floor(st, mark_at, mark_entered)
    st.held = add(st.held, more)
    b.charge(s, st, now, more)
    lay_floor(st, add(count, more), rest)
    mark_at, mark_entered = st.ends, st.entered
    b.enter(st, others)
    return mark_at, mark_entered
  end

  return h
end

local function token_bucket()
  local b = { moves_on = true } -- idle, with each charge

  local of_holds
  local function holds()
    of_holds = of_holds or bucket_holds(b)
    return of_holds
  end

  function b.advance(s, st, now)
    if now <= st.at then
      st.at = now -- a step back of the clock refills nothing
      return
    end
    local drained, rest = over(now - st.at, s.limit, 0, s.window)
    st.at = now
    if drained > st.count or drained == st.count and rest >= st.rest then
      st.ends = max(now, st.ends + 1) -- the name of the next filling
      st.count, st.rest, st.entered = 0, 0, 0
      st.floors, st.laid = nil, ''
      return
    end
    st.count = st.count - drained
    st.rest = st.rest - rest
    if st.rest < 0 then
      st.rest = st.rest + s.window
      st.count = st.count - 1
    end
  end

  function b.used(_, st)
    if st.rest > 0 then return add(st.count, 1) end
    return st.count
  end

  -- Counts what comes in; beyond the largest number it begins anew, as another filling.
  function b.enter(st, amount)
    if st.entered > MAX_AMOUNT - amount then
      st.ends = st.ends + 1
      st.entered, st.floors, st.laid = 0, nil, ''
    end
    st.entered = st.entered + amount
  end

  function b.charge(_, st, _, amount)
    if st.laid ~= '' then holds().sink(st) end
    st.count = add(st.count, amount)
    b.enter(st, amount)
  end

  -- Takes out what came last.
  function b.give_back(_, st, _, amount)
    if amount <= st.count then
      st.count = st.count - amount
    else
      st.count, st.rest = 0, 0
    end
  end

  function b.hold(...) return holds().hold(...) end
  function b.counts(...) return holds().counts(...) end
  function b.settle(...) return holds().settle(...) end
  function b.correct(...) return holds().correct(...) end
  function b.grow(...) return holds().grow(...) end

  function b.idle(s, st)
    if st.count == 0 and st.rest == 0 then return st.at end
    if s.limit == 0 then return MAX_AMOUNT end
    return add(st.at, over_up(st.count, s.window, st.rest, s.limit))
  end

  return b
end
