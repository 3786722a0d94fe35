-- The twin of limit/period.go: windows that follow one another; admits iff count + c ≤ L.
local function period()
  local p = {}

  -- The window that now lies in, or that begins now. Those of calendars come with the step.
  local function bounds(s, now)
    if s.algorithm == CALENDAR then return calendar_bounds(s.calendar, now) end
    if s.algorithm == FIRST_USE then return now, add(now, s.window) end
    local start = now - now % s.window
    return start, add(start, s.window)
  end

  function p.advance(s, st, now)
    if st.rest == 0 then st.rest = name(now) end
    if now < st.at then -- the clock has stepped back: the count goes with it
      st.at, st.ends = bounds(s, now)
      st.held = 0
      st.rest = st.rest + 1
    elseif st.entered == 0 or now >= st.ends then
      st.at, st.ends = bounds(s, now)
      st.count, st.entered, st.held = 0, 0, 0
    end
  end

  function p.used(_, st) return st.count end

  function p.charge(_, st, _, amount)
    st.count = add(st.count, amount)
    st.entered = max(st.entered, 1)
  end

  function p.give_back(_, st, _, amount) st.count = moved(st.count, st.held, amount, 0) end

  -- Returns which of the thresholds what was spent has reached, from < which ≤ to, above those that it had reached
  -- before.
  function p.crossed(st, thresholds)
    if st.entered == 0 then return 0, 0 end
    local spent, told = st.count - min(st.held, st.count), st.entered - 1
    local from, to, n = 0, 0, #thresholds
    while to < n and thresholds[to + 1] <= spent do
      to = to + 1
      if thresholds[to] <= told then from = to end
    end
    if from < to then st.entered = 1 + thresholds[to] end
    return from, to
  end

  function p.hold(s, st, now, amount)
    p.charge(s, st, now, amount)
    return st.at, st.rest
  end

  function p.counts(_, st, _, mark_at, mark_entered)
    return mark_at == st.at and mark_entered == st.rest
  end

  function p.release(s, st, mark_at, mark_entered, held)
    if p.counts(s, st, 0, mark_at, mark_entered) then st.held = less(st.held, held) end
  end

  function p.grow(s, st, now, mark_at, mark_entered, more)
    if p.counts(s, st, now, mark_at, mark_entered) then
      st.held = add(st.held, more)
      st.count = add(st.count, more)
    end
    return mark_at, mark_entered
  end

  function p.correct(s, st, now, mark_at, mark_entered, charged, actual)
    if p.counts(s, st, now, mark_at, mark_entered) then st.count = moved(st.count, st.held, charged, actual) end
  end

  function p.idle(_, st)
    if st.entered == 0 then return st.at end
    return st.ends
  end

  return p
end
