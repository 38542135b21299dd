-- SPDX-License-Identifier: Apache-2.0
-- tg.log(): a ready-made log_by_lua handler. Requests by route and status, their duration and the
-- time that upstreams took, by route. What a route was bound to is kept, for ROUTES_MAX of them.
local worker = require "resty.tidegate.worker"

local ROUTES_MAX = 4096
local floor = math.floor

local routes, route_count = {}, 0
local requests, durations, upstreams

local function bind(name)
	if route_count == ROUTES_MAX then routes, route_count = {}, 0 end -- bound again as they come
	local route = { name = name, duration = durations:with(name), upstream = nil, statuses = {} }
	routes[name] = route
	route_count = route_count + 1
	return route
end

-- nginx logs 000 where no answer was begun.
local function bind_status(route, status)
	local cell = requests:with(route.name, ("%03d"):format(status))
	route.statuses[status] = cell
	return cell
end

-- $upstream_response_time: seconds of each try, "0.010, 0.004 : 0.120"; "-" where there was none.
local function upstream_time(text)
	local sum = tonumber(text)
	if sum then return sum end
	for part in text:gmatch "[%d.]+" do sum = (sum or 0) + (tonumber(part) or 0) end
	return sum
end

-- $tidegate_route of the configuration, Kong's or APISIX's route, else the server's name. ngx.ctx
-- is made by being looked at, so only where one of them runs.
local function default_route()
	local name = ngx.var.tidegate_route
	if name and name ~= "" then return name end
	if rawget(_G, "kong") or package.loaded["apisix"] then
		local ctx = ngx.ctx
		local route = ctx.route or (ctx.api_ctx and ctx.api_ctx.route_name)
		if type(route) == "table" then route = route.name or route.id end
		if route then return tostring(route) end
	end
	return ngx.var.server_name
end

local M = { upstream_time = upstream_time }

function M.handler(tg)
	requests = tg.counter("tidegate_lua_requests_total", { "route", "status" })
	durations = tg.histogram("tidegate_lua_request_duration_seconds", { "route" })
	upstreams = tg.histogram("tidegate_lua_upstream_duration_seconds", { "route" })
	return function(o)
		local name = o and o.route or default_route
		if type(name) == "function" then name = name() end
		name = tostring(name)
		local route = routes[name] or bind(name)
		local status = ngx.status
		local cell = route.statuses[status] or bind_status(route, status)
		cell:inc()
		-- nginx's clock, in whole milliseconds: as exact as the thresholds are when it is rounded.
		route.duration:observe(floor((ngx.now() - ngx.req.start_time()) * 1000 + 0.5) / 1000)
		local text = ngx.var.upstream_response_time
		local took = text and upstream_time(text)
		if took then
			route.upstream = route.upstream or upstreams:with(name)
			route.upstream:observe(took)
		end
		worker.revive()
	end
end

return M
