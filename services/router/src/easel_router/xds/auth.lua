-- Who may call a service. One filter, before anything else; whatever is not proven is refused.
-- The tokens come with the route (filter context), so it works while the control plane is away.
-- Strings are compared over their whole length, whatever differs.
local bit = require("bit")
local band, bor, bxor, rol, rsh, lsh, tobit = bit.band, bit.bor, bit.bxor, bit.rol, bit.rshift, bit.lshift, bit.tobit
local byte, char, rep, sub, find = string.byte, string.char, string.rep, string.sub, string.find
local concat, time = table.concat, os.time

local function same(a, b)
  local different = bxor(#a, #b)
  for i = 1, #a do different = bor(different, bxor(byte(a, i), byte(b, i) or 0)) end
  return different == 0
end

-- SHA-1, RFC 3174, over an array of 32-bit words; `h` is the state before.
local W = {}
local function compress(h, s, at)
  for j = 0, 15 do
    local a, b, c, d = byte(s, at, at + 3)
    W[j] = bor(lsh(a, 24), lsh(b, 16), lsh(c, 8), d)
    at = at + 4
  end
  for j = 16, 79 do W[j] = rol(bxor(W[j - 3], W[j - 8], W[j - 14], W[j - 16]), 1) end
  local a, b, c, d, e = h[1], h[2], h[3], h[4], h[5]
  for j = 0, 19 do
    local t = tobit(rol(a, 5) + bxor(d, band(b, bxor(c, d))) + e + 0x5A827999 + W[j])
    e = d; d = c; c = rol(b, 30); b = a; a = t
  end
  for j = 20, 39 do
    local t = tobit(rol(a, 5) + bxor(b, c, d) + e + 0x6ED9EBA1 + W[j])
    e = d; d = c; c = rol(b, 30); b = a; a = t
  end
  for j = 40, 59 do
    local t = tobit(rol(a, 5) + bor(band(b, c), band(d, bor(b, c))) + e + 0x8F1BBCDC + W[j])
    e = d; d = c; c = rol(b, 30); b = a; a = t
  end
  for j = 60, 79 do
    local t = tobit(rol(a, 5) + bxor(b, c, d) + e + 0xCA62C1D6 + W[j])
    e = d; d = c; c = rol(b, 30); b = a; a = t
  end
  h[1], h[2], h[3] = tobit(h[1] + a), tobit(h[2] + b), tobit(h[3] + c)
  h[4], h[5] = tobit(h[4] + d), tobit(h[5] + e)
end

local function initial() return { 0x67452301, tobit(0xEFCDAB89), tobit(0x98BADCFE), 0x10325476, tobit(0xC3D2E1F0) } end

local function finish(h, s, before)
  local bits = (#s + before) * 8
  local tail = char(128) .. rep("\0", (55 - #s) % 64) .. rep("\0", 4)
    .. char(band(rsh(bits, 24), 255), band(rsh(bits, 16), 255), band(rsh(bits, 8), 255), band(bits, 255))
  s = s .. tail
  for at = 1, #s, 64 do compress(h, s, at) end
  local o = {}
  for i = 1, 5 do
    local v = h[i]
    o[i] = char(band(rsh(v, 24), 255), band(rsh(v, 16), 255), band(rsh(v, 8), 255), band(v, 255))
  end
  return concat(o)
end

-- HMAC, RFC 2104. The state after the padded key is the same for every request of a token: kept.
local keys, kept = {}, 0
local function states(token)
  local found = keys[token]
  if found then return found end
  local k = #token > 64 and finish(initial(), token, 0) or token
  local inner, outer, i_pad, o_pad = initial(), initial(), {}, {}
  for i = 1, 64 do
    local c = byte(k, i) or 0
    i_pad[i], o_pad[i] = char(bxor(c, 0x36)), char(bxor(c, 0x5c))
  end
  compress(inner, concat(i_pad), 1)
  compress(outer, concat(o_pad), 1)
  if kept >= 4096 then keys, kept = {}, 0 end
  found = { inner, outer }
  keys[token], kept = found, kept + 1
  return found
end

local function hmac(token, message)
  local s = states(token)
  local i, o = s[1], s[2]
  local digest = finish({ i[1], i[2], i[3], i[4], i[5] }, message, 64)
  return finish({ o[1], o[2], o[3], o[4], o[5] }, digest, 64)
end

local B = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local B64 = {}
for i = 0, 63 do B64[i] = sub(B, i + 1, i + 1) end
local function base64(s) -- of 20 bytes: 6 whole groups and one of two bytes
  local o, n = {}, 0
  for i = 1, 18, 3 do
    local a, b, c = byte(s, i, i + 2)
    local v = a * 65536 + b * 256 + c
    o[n + 1], o[n + 2], o[n + 3], o[n + 4] = B64[rsh(v, 18)], B64[band(rsh(v, 12), 63)], B64[band(rsh(v, 6), 63)], B64[band(v, 63)]
    n = n + 4
  end
  local a, b = byte(s, 19, 20)
  local v = a * 1024 + b * 4
  o[n + 1], o[n + 2], o[n + 3], o[n + 4] = B64[rsh(v, 12)], B64[band(rsh(v, 6), 63)], B64[band(v, 63)], "="
  return concat(o)
end

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
  return keys:get("token"), keys:get("tokens")
end

-- What an EAS signature is over.
local function message_of(headers, path)
  local cut = find(path, "?", 1, true)
  if cut then path = sub(path, 1, cut - 1) end
  return (headers:get(":method") or "") .. "\n" .. (headers:get("content-md5") or "") .. "\n"
    .. (headers:get("content-type") or "") .. "\n" .. (headers:get("date") or "") .. "\n" .. path
end

-- Several tokens, or one with an expiry or a limit: lines "EXPIRES NAME VALUE" (see auth.py), read once and kept.
local sets, sets_kept = {}, 0
local function set_of(lines)
  local found = sets[lines]
  if found then return found end
  found = {}
  for expires, name, value in string.gmatch(lines, "(%d+) (%S+) (%S+)") do
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
local WRONG_SIGNATURE = "the EAS signature is wrong: base64(HMAC-SHA1(token, METHOD \\n Content-MD5 \\n Content-Type \\n Date \\n path without query))"
local EXPIRED = "this token has expired"

-- One of several tokens, in any form.
local function one_of(h, headers, set, path)
  local given = headers:get("authorization")
  if given == nil then return refuse(h, NONE) end
  local wrong = WRONG
  local found = find_token(set, function(value) return same(given, value) end)
  if not found and sub(given, 1, 4) == "EAS " then
    wrong = WRONG_SIGNATURE
    local signature, message = sub(given, 5), message_of(headers, path or headers:get(":path") or "")
    found = find_token(set, function(value) return same(signature, base64(hmac(value, message))) end)
  elseif not found and find(given, "^[Bb]earer ") then
    wrong = WRONG_BEARER
    local bare = sub(given, 8)
    found = find_token(set, function(value) return same(bare, value) end)
  end
  if not found then return refuse(h, wrong) end
  if not found.good then return refuse(h, EXPIRED) end
  local name = found.token.name
  if name ~= "-" then h:streamInfo():dynamicMetadata():set("easel", "token", name) end
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
      token, tokens = reroute(h, headers, path)
      if token == nil and tokens == nil then
        h:respond({ [":status"] = "404" }, "no service answers at this path")
        return false
      end
    end
    if type(tokens) == "string" then return one_of(h, headers, set_of(tokens), path), path end
  end
  if type(token) ~= "string" or token == "" then return refuse(h, "this service has no token") end
  local given = headers:get("authorization")
  if given == nil then return refuse(h, NONE) end
  if same(given, token) then return true, path end
  local first = sub(given, 1, 4)
  if first == "EAS " then
    local message = message_of(headers, path or headers:get(":path") or "")
    if same(sub(given, 5), base64(hmac(token, message))) then return true, path end
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
  local ok, rerouted = admitted(h, context)
  if not ok then return end
  if rerouted then context = h:virtualHost():metadata() end
  local subject = context:get("subject") -- requests to a service under analysis are counted by the access log
  if subject then h:streamInfo():dynamicMetadata():set("easel", "subject", subject) end
end
