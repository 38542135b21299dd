-- SPDX-License-Identifier: Apache-2.0
-- gc-cycles.lua as a service of HAProxy. Its clock is the process's CPU time, in whole
-- microseconds: the only one that Lua has there, and with one thread the same as time on an idle
-- machine.
local here = debug.getinfo(1, "S").source:match "^@(.*/)"
local run = assert(loadfile(here .. "gc-cycles.lua"))(function()
	return os.clock() * 1e9
end)
collectgarbage "stop"

core.register_service("gc", "http", function(applet)
	local qs = applet.qs
	local answer = run(tonumber(qs:match "cycles=(%d+)"), qs:match "what=(%a+)",
		tonumber(qs:match "argument=(%d+)") or 0)
	applet:set_status(200)
	applet:add_header("content-length", #answer)
	applet:start_response()
	applet:send(answer)
end)

core.register_service("nothing", "http", function(applet)
	applet:set_status(204)
	applet:start_response()
end)
