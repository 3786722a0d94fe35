-- The periods of calendars, which only the server can tell: by name, three that follow one another, as
-- their four bounds. They come with each step (step.lua).
local calendars

-- Returns the period that now lies in. Where it did not come, the step is to be sent again with it.
local function calendar_bounds(name, now)
  local bounds = calendars[name]
  if bounds then
    for i = 1, 3 do
      if now >= bounds[i] and now < bounds[i + 1] then return bounds[i], bounds[i + 1] end
    end
  end
  error({ code = AGAIN, calendar = name })
end
