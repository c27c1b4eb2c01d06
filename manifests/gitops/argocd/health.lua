-- Health of a FineTuneJob for Argo CD. It needs none of Lua's libraries.
local function condition(wanted)
  for _, found in ipairs(obj.status.conditions or {}) do
    if found.type == wanted then
      return found
    end
  end
  return { status = "Unknown" }
end

local function health(status, message)
  return { status = status, message = message or "" }
end

if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "The operator has not looked at this manifest yet.")
end
if obj.status.phase == "Suspended" then
  return health("Suspended", obj.status.message)
end
if condition("Stalled").status == "True" then
  return health("Degraded", condition("Stalled").message)
end
if condition("Ready").status == "True" then
  return health("Healthy", condition("Ready").message)
end
return health("Progressing", obj.status.message)
