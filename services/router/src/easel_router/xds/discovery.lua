-- EAS's direct mode: where to send requests to a service. The answer is the same for all that exist; whether this one
-- does is seen by its own scope: every one that can be called has a token.
function envoy_on_request(h)
  local answer = h:filterContext():get("answer")
  local headers = h:headers()
  local name = string.match(headers:get(":path") or "", "/upstreams/([^/?]*)")
  headers:replace(":path", "/api/predict/" .. (name or "") .. "/")
  h:clearRouteCache()
  h:metadata() -- asking for it makes Envoy choose the route again
  local keys = h:virtualHost():metadata()
  if keys:get("token") == nil and keys:get("tokens") == nil then
    h:respond({ [":status"] = "404" }, "no such service")
    return
  end
  h:respond({ [":status"] = "200", ["content-type"] = "application/json" }, answer)
end
