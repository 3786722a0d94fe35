-- The twin of limit/concurrency.go: places that are held at the same time; admits iff live + c ≤ L.
local function concurrency()
  local c = { moves_on = true } -- idle, with each charge

  function c.advance(_, st, now) st.at = now end

  function c.used(_, st) return st.count end

  function c.charge() end

  function c.give_back() end

  function c.hold(_, st, _, amount)
    st.count = add(st.count, amount)
    return 0, 0
  end

  function c.counts() return true end

  function c.settle(_, st, _, _, _, held)
    st.count = less(st.count, held)
    st.held = less(st.held, held)
  end

  function c.grow(_, _, _, mark_at, mark_entered) return mark_at, mark_entered end

  function c.correct() end

  function c.idle(_, st) return st.at end

  return c
end
