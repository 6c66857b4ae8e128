-- The waiting room of the gateway: Envoy sends a request here when its version has no replica (`min = 0`), nor any
-- other version. The request stays until Consul names a replica that is ready, and goes on to it; or it is answered
-- 503, with the seconds after which asking again is worthwhile.
--
-- x-nomadserve-wakes, set by the gateway's routes: the version's Consul name, the seconds that it is expected to take
-- until it is ready, and those that a request may be kept. A client that does not want to wait says `Prefer: wait=0`.

-- When each version should be ready, in Unix seconds. Every worker thread of Envoy has a table of its own.
local ready_at = {}

local function refuse(handle, target, seconds)
  handle:respond(
    {[":status"] = "503", ["content-type"] = "application/json", ["retry-after"] = tostring(seconds)},
    '{"error":"' .. target .. ' has no replica that is ready; one is being started","reason":"starting"}'
  )
end

-- Address and port of a replica in Consul's reply; texts of users in it can't look like these, for their quotes are escaped.
local function replica_in(reply)
  local service = string.match(reply, '"Service":(%b{})')
  local address = service and string.match(service, '"Address":"([^"]+)"')
  local port = service and string.match(service, '"Port":(%d+)')
  if not (address and port) then return nil end
  if string.find(address, ":", 1, true) then address = "[" .. address .. "]" end
  return address .. ":" .. port
end

-- Asks Consul for the version's healthy replicas; with an index, waits for news. Answers status, replica, index.
local function ask(handle, target, index, seconds)
  local path = "/v1/health/service/" .. target .. "?passing=1"
  if index then path = path .. "&wait=2s&index=" .. index end
  local headers = {[":method"] = "GET", [":path"] = path, [":authority"] = "consul"}
  headers["x-consul-token"] = os.getenv("CONSUL_HTTP_TOKEN") -- of Envoy's task; none where Consul has no ACLs
  local reply, body = handle:httpCall("consul", headers, "", seconds * 1000)
  return reply[":status"], replica_in(body or ""), reply["x-consul-index"] or "1"
end

function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove("x-nomadserve-replica")
  local wakes = headers:get("x-nomadserve-wakes") or ""
  local target, expected_s, hold_s = string.match(wakes, "^([%w-]+) (%d+) (%d+)$")
  if not target then return refuse(handle, "this version", 30) end
  expected_s = tonumber(expected_s)
  hold_s = math.min(tonumber(hold_s), tonumber(string.match(headers:get("prefer") or "", "wait=(%d+)")) or math.huge)

  local now = os.time()
  local status, replica, index = ask(handle, target, nil, 5)
  if not replica and (not ready_at[target] or now > ready_at[target] + expected_s) then
    ready_at[target] = now + expected_s
  end
  local until_at = now + hold_s
  -- What will not be ready in time is refused at once: the client can do something better than wait in vain.
  local is_worthwhile = not replica and ready_at[target] <= until_at
  while is_worthwhile and not replica and status == "200" and os.time() < until_at do
    status, replica, index = ask(handle, target, index, until_at - os.time() + 1)
  end
  if not replica then return refuse(handle, target, math.max(1, (ready_at[target] or 0) - os.time())) end
  ready_at[target] = nil
  handle:headers():replace("x-nomadserve-replica", replica)
end
