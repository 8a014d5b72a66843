-- Who may call a service. One filter, before anything else; whatever is not proven is refused.
-- The tokens come with the route (filter context), so it works while the control plane is away.
-- hashing.lua stands before it, browser.lua after it.
local by_browser

local function refuse(h, sentence)
  h:respond({ [":status"] = "401", ["www-authenticate"] = "Bearer" }, sentence)
  return false
end

-- No route yet: "/api/predict/name?query" and gRPC calls that name their service in metadata
-- (x-easel-service: name) get the path that has one.
local function reroute(h, headers, path)
  local cut = find(path, "?", 1, true)
  local base = cut and sub(path, 1, cut - 1) or path
  local name = headers:get("x-easel-service")
  if sub(base, 1, 13) == "/api/predict/" then
    if not cut or find(base, "/", 14, true) then return end
    headers:replace(":path", base .. "/" .. sub(path, cut))
  elseif name and find(name, "^[%w_.]+$") then
    headers:replace(":path", "/api/predict/" .. name .. path)
  else
    return
  end
  h:clearRouteCache()
  h:metadata() -- asking for it makes Envoy choose the route again; the filter context stays that of before
  local keys = h:virtualHost():metadata()
  return keys:get("token"), keys:get("tokens"), keys
end

-- A target as its caller typed it: clients escape what cannot stand in a target, and sign what they were given. Other
-- escapes stay, so that no two targets that mean different things become one: those of delimiters ("%2F" is no "/"),
-- of control characters, and of a "%" which would make another escape.
local function typed(target)
  return (gsub(target, "()%%(%x%x)", function(at, hex)
    local c = char(tonumber(hex, 16))
    if find(c, "[%w%c._~!$&'()*+,;=:@/?#-]") or c == "%" and find(target, "^%x%x", at + 3) then return nil end
    return c
  end))
end

-- What `is(message)` finds for a message that an EAS signature may be over: the path; a service's name may have been
-- given with a query or with characters that were escaped on the way, then the whole target as sent, or as typed.
-- Long ones are not looked at: strangers would have us hash for milliseconds, once for each token.
local LONGEST_SIGNED = 4096
local function signed(headers, target, is)
  local head = (headers:get(":method") or "") .. "\n" .. (headers:get("content-md5") or "") .. "\n"
    .. (headers:get("content-type") or "") .. "\n" .. (headers:get("date") or "") .. "\n"
  local cut = find(target, "?", 1, true)
  local path, most = cut and sub(target, 1, cut - 1) or target, LONGEST_SIGNED - #head
  local found = #path <= most and is(head .. path)
  if found or #target > most then return found end
  if cut then found = is(head .. target) end
  if not found and find(target, "%", 1, true) then found = is(head .. typed(target)) end
  return found
end

-- Several tokens, or one with an expiry or a limit: lines "EXPIRES NAME VALUE" (see auth.py), read once and kept.
local sets, sets_kept = {}, 0
local function set_of(lines)
  local found = sets[lines]
  if found then return found end
  found = {}
  for expires, name, value in gmatch(lines, "(%d+) (%S+) (%S+)") do
    found[#found + 1] = { expires = tonumber(expires), name = name, value = value }
  end
  if sets_kept >= 4096 then sets, sets_kept = {}, 0 end
  sets[lines], sets_kept = found, sets_kept + 1
  return found
end

-- The token for which `is(value)` holds; all are tried, whichever it is. One that is good now, if there is one.
local function find_token(set, is)
  local found, now = nil, time()
  for i = 1, #set do
    local token = set[i]
    if is(token.value) then
      local good = token.expires == 0 or now < token.expires
      if good or not found then found = { token = token, good = good } end
    end
  end
  return found
end

local NONE = "no Authorization header: send the service's token as it is, or 'Bearer TOKEN', or 'EAS SIGNATURE'"
local WRONG = "the token is not the token of this service"
local WRONG_BEARER = "the Bearer token is not the token of this service"
local WRONG_SIGNATURE = "the EAS signature is wrong: base64(HMAC-SHA1(token, METHOD \\n Content-MD5 \\n Content-Type \\n Date \\n path, alone or with its query), of at most 4096 bytes)"
local EXPIRED = "this token has expired"

-- Limits of a token are told by its name.
local function tell(h, token)
  if token.name ~= "-" then h:streamInfo():dynamicMetadata():set("easel", "token", token.name) end
end

-- One of several tokens, in any form.
local function one_of(h, headers, set, path)
  local given = headers:get("authorization")
  if given == nil then return refuse(h, NONE) end
  local wrong = WRONG
  local found = find_token(set, function(value) return same(given, value) end)
  if not found and sub(given, 1, 4) == "EAS " then
    wrong = WRONG_SIGNATURE
    local signature = sub(given, 5)
    found = signed(headers, path or headers:get(":path") or "", function(message)
      return find_token(set, function(value) return same(signature, base64(hmac(value, message))) end)
    end)
  elseif not found and find(given, "^[Bb]earer ") then
    wrong = WRONG_BEARER
    local bare = sub(given, 8)
    found = find_token(set, function(value) return same(bare, value) end)
  end
  if not found then return refuse(h, wrong) end
  if not found.good then return refuse(h, EXPIRED) end
  tell(h, found.token)
  return true
end

-- Whether it may go on, and whether it got its route only here.
local function admitted(h, context)
  local token, tokens = context:get("token"), nil
  local headers = h:headers()
  local path
  if token == nil then
    tokens = context:get("tokens")
    if tokens == nil then
      path = headers:get(":path") or ""
      token, tokens, context = reroute(h, headers, path)
      if token == nil and tokens == nil then
        h:respond({ [":status"] = "404" }, "no service answers at this path")
        return false
      end
    end
    if type(tokens) == "string" then
      local web = context:get("web")
      if web then return by_browser(h, headers, set_of(tokens), path, web, context:get("home")), path end
      return one_of(h, headers, set_of(tokens), path), path
    end
  end
  if type(token) ~= "string" or token == "" then return refuse(h, "this service has no token") end
  local given = headers:get("authorization")
  if given == nil then return refuse(h, NONE) end
  if same(given, token) then return true, path end
  local first = sub(given, 1, 4)
  if first == "EAS " then
    local signature = sub(given, 5)
    local function is(message) return same(signature, base64(hmac(token, message))) end
    if signed(headers, path or headers:get(":path") or "", is) then return true, path end
    return refuse(h, WRONG_SIGNATURE)
  end
  if (first == "Bear" or first == "bear") and find(given, "^[Bb]earer ") then
    if same(sub(given, 8), token) then return true, path end
    return refuse(h, WRONG_BEARER)
  end
  return refuse(h, WRONG)
end

function envoy_on_request(h)
  local context = h:filterContext()
  -- Envoy lets a request go on whose script broke off. (An answer ends the script for good: it never comes back here.)
  local ran, ok, rerouted = pcall(admitted, h, context)
  if not ran then
    h:logErr("who may call could not be told, so nobody may: " .. tostring(ok))
    return h:respond({ [":status"] = "503" }, "the gateway could not tell whether this request may pass")
  end
  if not ok then return end
  if rerouted then context = h:virtualHost():metadata() end
  local subject = context:get("subject") -- requests to a service under analysis are counted by the access log
  if subject then h:streamInfo():dynamicMetadata():set("easel", "subject", subject) end
end
