-- What auth.lua and browser.lua compute with; the three are one script. Strings are compared over their whole length,
-- whatever differs.
local bit = require("bit")
local band, bor, bxor, rol, rsh, lsh, tobit = bit.band, bit.bor, bit.bxor, bit.rol, bit.rshift, bit.lshift, bit.tobit
local byte, char, rep, sub, find = string.byte, string.char, string.rep, string.sub, string.find
local gmatch, gsub, lower, match = string.gmatch, string.gsub, string.lower, string.match
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

local function url64(s) -- the same in the characters of a URL, without padding
  return (gsub(base64(s), "[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" }))
end
