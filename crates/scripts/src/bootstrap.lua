-- Makes a fresh state the one that scripts see: locks what they share, and answers the functions by
-- which the host runs them. Scripts can reach functions of this chunk (pcall and its kin), so none of
-- them may read a global: a script could give it another environment.

local native = ...
local error, getinfo, next, pairs, rawget, rawset = error, debug.getinfo, next, pairs, rawget, rawset
local getmetatable, setmetatable, tostring, type = getmetatable, setmetatable, tostring, type
local pcall, xpcall = pcall, xpcall
local resume = coroutine.resume
local globals = _G

-- What a script sees instead of a shared table: empty, so that every write is met. Lua 5.1 has no
-- read-only tables; Redis has patched them in.
local proxies, proxied = {}, {}

local function readonly()
  error('Attempt to modify a readonly table', 2)
end

local function proxy(real, mask)
  local seen = setmetatable({}, { __index = real, __newindex = readonly, __metatable = mask or false })
  proxies[#proxies + 1] = seen
  proxied[seen] = real
  return seen
end

-- Errors.

local function caught(ok, reason, ...)
  if ok then
    return ok, reason, ...
  end
  -- Raises again if the script is to end: it must not catch that.
  reason = native.plain(reason)
  if type(reason) == 'table' then
    local text = reason.err
    if type(text) == 'string' or type(text) == 'number' then
      reason = text
    end
  end
  return false, reason
end

local function resumed(ok, reason, ...)
  if ok then
    return ok, reason, ...
  end
  return false, (native.plain(reason))
end

-- The innermost line that is the script's own.
local function position()
  local level = 3
  while true do
    local info = getinfo(level, 'Sl')
    if not info then
      return nil
    end
    if info.what ~= 'C' and info.what ~= 'tail' and info.source ~= '=evenkeel' then
      return info
    end
    level = level + 1
  end
end

local function handler(reason)
  reason = native.reason(reason)
  if type(reason) ~= 'table' or proxied[reason] then
    reason = { err = 'ERR ' .. tostring(reason) }
  end
  local info = position()
  if info then
    rawset(reason, 'source', info.source)
    rawset(reason, 'line', info.currentline)
  end
  return reason
end

-- What scripts find.

local real = {}
for name, value in pairs(globals) do
  real[name] = value
end
for name in pairs(real) do
  globals[name] = nil
end
-- `newproxy` would give a script a finalizer, which runs in a later one, of another client, and without end
-- if it likes.
for _, name in pairs({
  'debug', 'print', 'dofile', 'loadfile', 'module', 'require', 'package', 'io', 'newproxy',
}) do
  real[name] = nil
end
real._G = globals
real.pcall = function(...)
  return caught(pcall(...))
end
real.xpcall = function(f, answer)
  return resumed(xpcall(f, function(reason)
    return answer(native.reason(reason))
  end))
end
real.coroutine.resume = function(...)
  return resumed(resume(...))
end
for name, value in pairs(native.globals) do
  real[name] = value
end
for _, library in pairs({ 'math', 'string', 'table' }) do
  for name, value in pairs(native[library]) do
    real[library][name] = value
  end
end
-- Values that a closure of Lua's keeps take no room of the host's, however many iterators there are.
local texts, step = native.string.gmatch, native.string.step
real.string.step = nil
real.string.gmatch = function(...)
  local subject, pattern = texts(...)
  local at = 0
  local function go_on(next, ...)
    at = next
    return ...
  end
  return function()
    return go_on(step(subject, pattern, at))
  end
end
real.string.gfind = real.string.gmatch
local string_metatable = getmetatable('')
string_metatable.__metatable = proxy({ __index = proxy(real.string) })
real.os = native.os
for _, name in pairs({ 'string', 'table', 'math', 'coroutine', 'os', 'cjson', 'cmsgpack', 'struct', 'bit' }) do
  real[name] = proxy(real[name])
end
real.redis = proxy(native.redis)
real.server = real.redis

local function nonexistent(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end
setmetatable(real, { __index = nonexistent })

-- While a library is loaded it sees no more than it needs to register its functions.
local loading = { redis = proxy(setmetatable(native.loading, { __index = nonexistent })) }
loading.server = loading.redis
setmetatable(loading, { __index = nonexistent })

local view = { __index = real, __newindex = readonly, __metatable = proxy({}) }
setmetatable(globals, view)
proxies[#proxies + 1] = globals
proxied[globals] = real

-- table.insert passes by __newindex: what it left in a shared table is gone before anybody else runs.
local function tidy()
  for at = 1, #proxies do
    local seen = proxies[at]
    local key = next(seen)
    while key ~= nil do
      rawset(seen, key, nil)
      key = next(seen)
    end
  end
end

return {
  tidy = tidy,
  proxies = proxies,
  proxied = proxied,
  real = real,
  handler = handler,
  load = function(library)
    view.__index = loading
    local ok, reason = pcall(library)
    view.__index = real
    tidy()
    if ok then
      return true
    end
    return false, native.reason(reason)
  end,
}
