-- Browsers, which send no token by themselves: a signed link opens a web application, a cookie keeps it open. Both are
-- signed under one of the service's tokens, and end with it (docs/webapps.md). Whoever sends a token needs neither.
local SESSION_S = 43200
local MOST_SESSIONS = 4 -- cookies of one name that are looked at; a browser sends one or two

local function signature(token, what, service, expires)
  return url64(hmac(token, what .. "\n" .. service .. "\n" .. expires))
end

-- The token under which `text`, "EXPIRES.SIGNATURE", was signed; or nil and why it is worth nothing.
local function proven(set, what, service, text)
  local expires, given = match(text, "^(%d+)%.([%w_-]+)$")
  if not expires or #expires > 12 then return nil, "is not valid" end
  local found = find_token(set, function(value) return same(given, signature(value, what, service, expires)) end)
  if not found or not found.good then return nil, "is not valid any more" end
  if time() >= tonumber(expires) then return nil, "has expired" end
  return found.token
end

-- The sessions among a request's cookies; the model gets the others.
local function take_sessions(headers)
  local cookies = headers:get("cookie")
  if cookies == nil then return {} end
  local sessions, others = {}, {}
  for cookie in gmatch(cookies, "[^;]+") do
    cookie = match(cookie, "^%s*(.*%S)") or "" -- trimmed, in time that grows as its length
    local value = match(cookie, "^easel_session=(.*)$")
    if value then
      if #sessions < MOST_SESSIONS then sessions[#sessions + 1] = value end
    elseif cookie ~= "" then
      others[#others + 1] = cookie
    end
  end
  if #others == 0 then headers:remove("cookie") else headers:replace("cookie", concat(others, "; ")) end
  return sessions
end

-- The link in a path, and the path without it, which stays on this host.
local function take_link(path)
  local cut = find(path, "?", 1, true)
  if not cut or not find(path, "easel_link=", cut, true) then return nil end
  local link, others = nil, {}
  for parameter in gmatch(sub(path, cut + 1), "[^&]+") do
    local value = match(parameter, "^easel_link=(.*)$")
    if value then link = value else others[#others + 1] = parameter end
  end
  local clean = "/" .. gsub(sub(path, 1, cut - 1), "^[/\\]+", "") -- browsers take \ for /, and two of them for a host
  return link, #others > 0 and clean .. "?" .. concat(others, "&") or clean
end

local function redirect(h, clean, cookie)
  h:respond({
    [":status"] = "303", ["location"] = clean, ["set-cookie"] = cookie, ["cache-control"] = "no-store",
    ["referrer-policy"] = "no-referrer",
  }, "")
  return false
end

-- No longer than the token lives. Secure where the browser came by TLS.
local function session_cookie(headers, token, service, home)
  local now = time()
  local expires = now + SESSION_S
  if token.expires ~= 0 and token.expires < expires then expires = token.expires end
  local value = expires .. "." .. signature(token.value, "easel-session", service, tostring(expires))
  local secure = headers:get("x-forwarded-proto") == "https" and "; Secure" or ""
  return "easel_session=" .. value .. "; Path=" .. home .. "; Max-Age=" .. (expires - now)
    .. "; HttpOnly; SameSite=Lax" .. secure
end

-- A page of another origin may have the browser send the cookie along, above all with a WebSocket.
local function is_foreign(headers)
  local origin = headers:get("origin")
  if origin == nil then return false end
  return lower(match(origin, "^https?://(.+)$") or "") ~= lower(headers:get(":authority") or "")
end

function by_browser(h, headers, set, path, service, home)
  local sessions = take_sessions(headers)
  local whole, method, has_token = headers:get(":path") or "", headers:get(":method"), headers:get("authorization") ~= nil
  local link, clean = take_link(whole)
  local follows = link and not has_token and (method == "GET" or method == "HEAD")
  if link and not follows then headers:replace(":path", clean) end -- what opens it is not for the model
  if has_token then return one_of(h, headers, set, path or whole) end
  local why
  if follows then
    local token, reason = proven(set, "easel-link", service, link)
    if token then return redirect(h, clean, session_cookie(headers, token, service, home)) end
    why = "this link " .. reason
  end
  for i = 1, #sessions do
    local token, reason = proven(set, "easel-session", service, sessions[i])
    if token then
      if why then return redirect(h, clean) end -- an old link, opened once more
      if is_foreign(headers) then
        h:respond({ [":status"] = "403" }, "a page of another origin must send a token in the Authorization header")
        return false
      end
      tell(h, token)
      return true
    end
    why = why or "this session " .. reason
  end
  return refuse(h, (why or service .. " is a web application, which a link or a token opens")
    .. "; `easel open " .. service .. "` makes a new link")
end
