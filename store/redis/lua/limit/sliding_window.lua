-- The twin of limit/slidingwindow.go: admits iff (cur + c)·W + prev·(W − e) ≤ L·W, e = t mod W.
local function sliding_window()
  local w = {}

  function w.advance(s, st, now)
    if st.ends == 0 then st.ends = name(now) end
    local start = now - now % s.window
    if start == st.at then return end
    if start < st.at then -- the clock has stepped back: the counts go with it
      st.ends = st.ends + 1
      st.entered = 0
    elseif start == st.at + s.window then
      st.rest, st.entered, st.count = st.count, st.held, 0
    else
      st.rest, st.entered, st.count = 0, 0, 0
    end
    st.at, st.held = start, 0
  end

  -- cur + ⌈prev·(W − e)/W⌉
  function w.used(s, st, now)
    if st.rest == 0 then return st.count end
    return add(st.count, over_up(st.rest, s.window - (now - st.at), 0, s.window))
  end

  function w.charge(_, st, _, amount) st.count = add(st.count, amount) end

  function w.give_back(_, st, _, amount) st.count = moved(st.count, st.held, amount, 0) end

  function w.hold(_, st, _, amount)
    st.count = add(st.count, amount)
    return st.at, st.ends
  end

  function w.counts(s, st, _, mark_at, mark_entered)
    return mark_entered == st.ends and (mark_at == st.at or mark_at == st.at - s.window)
  end

  function w.grow(s, st, now, mark_at, mark_entered, more)
    if not w.counts(s, st, now, mark_at, mark_entered) then return mark_at, mark_entered end
    if mark_at == st.at then
      st.held = add(st.held, more)
      st.count = add(st.count, more)
    else
      st.entered = add(st.entered, more)
      st.rest = add(st.rest, more)
    end
    return mark_at, mark_entered
  end

  function w.correct(s, st, now, mark_at, mark_entered, charged, actual)
    if not w.counts(s, st, now, mark_at, mark_entered) then return end
    if mark_at == st.at then
      st.count = moved(st.count, st.held, charged, actual)
    else
      st.rest = moved(st.rest, st.entered, charged, actual)
    end
  end

  function w.settle(s, st, now, mark_at, mark_entered, held, actual)
    if not w.counts(s, st, now, mark_at, mark_entered) then return end
    if mark_at == st.at then
      st.held = less(st.held, held)
    else
      st.entered = less(st.entered, held)
    end
    w.correct(s, st, now, mark_at, mark_entered, held, actual)
  end

  function w.idle(s, st) return add(st.at, 2 * s.window) end

  return w
end
