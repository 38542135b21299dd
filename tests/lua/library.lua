-- SPDX-License-Identifier: Apache-2.0
-- lua/tidegate.lua, the drivers and the shipped hooks, in plain Lua 5.4 with a host that is played.
package.path = "lua/?.lua"

local count, failed = 0, 0

local function check(ok, name, why)
	count = count + 1
	if not ok then
		failed = failed + 1
	end
	print((ok and "ok " or "not ok ") .. count .. " - " .. name)
	if not ok and why then
		print("# " .. tostring(why))
	end
end

local function equal(got, wanted, name)
	check(got == wanted, name, ("got %s, wanted %s"):format(tostring(got), tostring(wanted)))
end

-- What the script process gives to hooks; it writes down what was asked of it.
local function host(answers)
	local asked = {}
	tidegate = {
		signal = function(name)
			asked[#asked + 1] = "signal " .. name
			return answers.sent, answers.why
		end,
		sleep = function(s)
			asked[#asked + 1] = "sleep " .. s
		end,
		exec = function(argv, timeout)
			asked[#asked + 1] = "exec " .. table.concat(argv, " ") .. " " .. tostring(timeout)
			return answers.status, answers.output or ""
		end,
		hook = function(hook)
			asked[#asked + 1] = hook
		end,
		wait_quiet = function()
			asked[#asked + 1] = "wait_quiet"
		end,
		wait_in_flight = function()
			asked[#asked + 1] = "wait_in_flight"
		end,
	}
	assert(loadfile("lua/tidegate.lua", "t"))()
	return asked
end

-- Drivers: the signal that each gateway takes for "finish, then go". TERM resets nginx's requests
-- and is HAProxy's hard stop.
local stops = {
	nginx = "QUIT",
	openresty = "QUIT",
	kong = "QUIT",
	apisix = "QUIT",
	haproxy = "USR1",
	caddy = "TERM",
	traefik = "TERM",
	apinto = "TERM",
	other = "TERM",
}
local names = {}
for name in pairs(stops) do
	names[#names + 1] = name
end
table.sort(names)
for _, name in ipairs(names) do
	local driver = require("drivers." .. name)
	equal(driver.name, name, "driver " .. name .. " has its file's name")
	equal(driver.stop, stops[name], "driver " .. name .. " stops gracefully")
end

-- The built-in drain has a table of its own: both must say the same.
local rows = 0
for line in io.lines("agent/drain/driver.c") do
	local name, stop = line:match('^%s*DRIVER%("([%w*]+)", (%u[%u%d]*),')
	if name then
		rows = rows + 1
		equal(stops[name == "*" and "other" or name], stop, "built-in drain agrees on " .. name)
	end
end
equal(rows, #names, "built-in drain knows the same gateways")

local asked = host({ sent = true })
equal(tidegate.driver("haproxy").stop, "USR1", "driver() finds a driver")
equal(tidegate.driver("unheard-of").name, "other", "driver() falls back for an unknown gateway")
equal(tidegate.driver("../../etc/passwd").name, "other", "driver() falls back for a path")
equal(tidegate.stop({ driver = "nginx" }), true, "stop() succeeds")
equal(asked[1], "signal QUIT", "stop() sends the driver's signal")

host({ sent = nil, why = "no such process" })
local ok, why = pcall(tidegate.stop, { driver = "nginx" })
check(not ok and why:find("signal QUIT: no such process", 1, true), "stop() raises why", why)

asked = host({})
local tries = 0
local result = tidegate.retry(5, 0.5, function(n)
	tries = tries + 1
	return n == 3 and "third"
end)
equal(result, "third", "retry() gives what the function gave")
equal(tries, 3, "retry() ends with success")
equal(#asked, 2, "retry() pauses between tries only")
equal(asked[1], "sleep 0.5", "retry() pauses as long as told")

result, why = tidegate.retry(2, 0, function()
	error("boom", 0)
end)
check(result == nil and why == "boom", "retry() survives errors and tells the last", why)
result, why = tidegate.retry(1, 0, function()
	return nil, "not yet"
end)
check(result == nil and why == "not yet", "retry() tells why it gave up", why)

asked = host({ status = 0, output = "done" })
equal(tidegate.run({ "/bin/x", "y" }, 5), "done", "run() gives the output")
equal(asked[1], "exec /bin/x y 5", "run() hands on arguments and time")
host({ status = 3, output = "bad" })
ok, why = pcall(tidegate.run, { "/bin/x" })
check(not ok and why:find("/bin/x: status 3: bad", 1, true), "run() raises with the status", why)
host({ status = nil, output = "not allowed" })
ok, why = pcall(tidegate.run, { "/bin/x" })
check(not ok and why:find("/bin/x: not allowed", 1, true), "run() raises when nothing ran", why)

-- The shipped drain: quiet, then stop, then wait, each at its own point.
asked = host({ sent = true })
assert(loadfile("lua/hooks/50-drain.lua", "t"))()
local hooks, points = asked, {}
for _, hook in ipairs(hooks) do
	points[#points + 1] = hook.point
end
equal(table.concat(points, " "), "drain.quiet drain.stop drain.wait", "points of the shipped hooks")
local order = {}
tidegate.wait_quiet = function()
	order[#order + 1] = "quiet"
end
tidegate.signal = function(name)
	order[#order + 1] = name
	return true
end
tidegate.wait_in_flight = function()
	order[#order + 1] = "in flight"
end
for _, hook in ipairs(hooks) do
	hook.run({ driver = "nginx", point = hook.point })
end
equal(table.concat(order, ", "), "quiet, QUIT, in flight", "the shipped drain does it in order")

print("1.." .. count)
os.exit(failed == 0)
