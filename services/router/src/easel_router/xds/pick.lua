-- Which member of a group gets a request. Behind the auth filter; in the chain of groups' scopes, and of requests that
-- had no route when they came. Rewrites the path to the member's own and has Envoy choose the route again.
local bit = require("bit")
local bxor, rsh, lsh, tobit = bit.bxor, bit.rshift, bit.lshift, bit.tobit
local byte, find, gmatch, gsub, match, sub = string.byte, string.find, string.gmatch, string.gsub, string.match, string.sub

-- Workers, and Envoys, that drew the same numbers would not share as they should.
math.randomseed(os.time() + (tonumber(match(tostring({}), "0x(%x+)") or "0", 16) or 0) % 2147483648)
local random = math.random

-- Lines, see groups.py; read once and kept.
local groups, kept = {}, 0
local function group_of(text)
  local found = groups[text]
  if found then return found end
  found = { name = "", members = {}, total = 0 }
  for word, rest in gmatch(text, "(%S+) ([^\n]+)") do
    if word == "member" then
      local weight, service = match(rest, "^(%d+) (%S+)$")
      found.total = found.total + tonumber(weight)
      found.members[#found.members + 1] = { service = service, below = found.total }
    elseif word == "match" then
      local kind, name, value = match(rest, "^(%S+) (%S+) ?(.*)$")
      found.match = { kind = kind, name = name, value = value }
    elseif word == "sticky" then
      local kind, name = match(rest, "^(%S+) (%S+)$")
      found.sticky = { kind = kind, name = name }
    elseif word == "permille" then
      found.permille = tonumber(rest)
    else
      found[word] = rest
    end
  end
  if kept >= 4096 then groups, kept = {}, 0 end
  groups[text], kept = found, kept + 1
  return found
end

-- Jenkins' one-at-a-time hash, as a number from 0 to 999.
local function point_of(text)
  local h = 0
  for i = 1, #text do
    h = tobit(h + byte(text, i))
    h = tobit(h + lsh(h, 10))
    h = bxor(h, rsh(h, 6))
  end
  h = tobit(h + lsh(h, 3))
  h = bxor(h, rsh(h, 11))
  h = tobit(h + lsh(h, 15))
  return (h % 4294967296) % 1000
end

local function decoded(text)
  return (gsub(text, "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- What a request carries under a name: a header, a cookie, or a parameter of the query.
local function carried(headers, path, what)
  if what.kind == "header" then return headers:get(what.name) end
  if what.kind == "cookie" then
    for cookie in gmatch(headers:get("cookie") or "", "[^;]+") do -- anchored below: a long text is looked at once
      local name, value = match(cookie, "^%s*([^=%s]+)=(.*)$")
      if name == what.name then return value end
    end
    return nil
  end
  local cut = find(path, "?", 1, true)
  if not cut then return nil end
  for name, value in gmatch(sub(path, cut + 1), "([^=&]+)=?([^&]*)") do
    if decoded(name) == what.name then return decoded(value) end
  end
end

local function to_candidate(group, headers, path)
  if group.match and carried(headers, path, group.match) == group.match.value then return true end
  local caller = group.sticky and carried(headers, path, group.sticky)
  local point = caller and point_of(caller) or random(0, 999)
  return point < group.permille
end

local function choose(group, headers, path)
  if group.candidate and to_candidate(group, headers, path) then return group.candidate, "candidate" end
  local members = group.members
  if #members == 1 then return members[1].service, "stable" end
  local at = random() * group.total
  for i = 1, #members do
    if at < members[i].below then return members[i].service, "stable" end
  end
end

function envoy_on_request(h)
  local text = h:filterContext():get("group")
  if text == nil then return end -- a service, found late
  local group = group_of(text)
  local headers = h:headers()
  local path = headers:get(":path") or ""
  local service, arm = choose(group, headers, path)
  if service == nil then
    h:respond({ [":status"] = "530" }, -- NO_MEMBER of replies.py
      "no member of group " .. group.name .. " takes part in its traffic")
    return
  end
  if group.web then -- a web application by its host name: the path is the model's own
    headers:replace("x-easel-host", service)
    headers:replace(":path", "/api/predict/" .. service .. (sub(path, 1, 1) == "/" and path or "/" .. path))
  else
    headers:replace(":path", "/api/predict/" .. service .. match(path, "^/api/predict/[^/?]+(.*)$"))
  end
  h:clearRouteCache()
  h:metadata() -- asking for it makes Envoy choose the route again
  if group.web then headers:remove("x-easel-host") end
  -- Requests under analysis are counted by the access log: as the group's, or as the member's own.
  local subject = group.subject or h:virtualHost():metadata():get("subject")
  if subject == nil then return end
  local told = h:streamInfo():dynamicMetadata()
  told:set("easel", "subject", subject)
  if group.subject then told:set("easel", "arm", arm) end
end
