-- The twin of limit/tokenbucket.go: level(t) = max(0, level − Δt·N/P); admits iff level + c ≤ B.
local function token_bucket()
  local b = { moves_on = true } -- idle, with each charge

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

  function b.charge(_, st, _, amount)
    st.count = add(st.count, amount)
    if st.entered > MAX_AMOUNT - amount then
      st.ends = st.ends + 1 -- begin to count anew, as another filling
      st.entered = 0
    end
    st.entered = st.entered + amount
  end

  local function take_out(st, amount, whole)
    if amount <= whole then
      st.count = st.count - amount
      return
    end
    st.count = st.count - whole
    st.rest = 0
  end

  function b.give_back(_, st, _, amount) take_out(st, amount, st.count) end

  function b.hold(s, st, now, amount)
    b.charge(s, st, now, amount)
    return st.ends, st.entered
  end

  function b.counts(_, st, _, mark_at, mark_entered)
    local above = st.entered - mark_entered
    return mark_at == st.ends and above >= 0 and (above < st.count or above == st.count and st.rest > 0)
  end

  function b.release(_, st, _, _, held) st.held = less(st.held, held) end

  -- Moves the mark down from here by what others have in the bucket.
  function b.grow(s, st, now, mark_at, mark_entered, more)
    local others = b.used(s, st)
    if mark_at == st.ends and mark_entered <= st.entered then others = min(others, st.entered - mark_entered) end
    st.held = add(st.held, more)
    b.charge(s, st, now, more)
    if others > st.entered - more then return mark_at, mark_entered end
    return st.ends, st.entered - others
  end

  -- Gives back min(charged − actual, level − (entered − entered at the hold)).
  function b.correct(s, st, now, mark_at, mark_entered, charged, actual)
    if actual > charged then
      b.charge(s, st, now, actual - charged)
      return
    end
    if b.counts(s, st, now, mark_at, mark_entered) then
      take_out(st, charged - actual, st.count - (st.entered - mark_entered))
    end
  end

  function b.idle(s, st)
    if st.count == 0 and st.rest == 0 then return st.at end
    if s.limit == 0 then return MAX_AMOUNT end
    return add(st.at, over_up(st.count, s.window, st.rest, s.limit))
  end

  return b
end
