-- SPDX-License-Identifier: Apache-2.0
-- Handler that does a known number of collection cycles and times each call itself. The collector
-- is stopped in between, so that no other step is ever made. Answers with one JSON line:
-- {"cycles":N,"calls":N,"ns":TIME OF ALL,"empty_ns":TIME OF AS MANY EMPTY MEASURES}.
local ffi = require "ffi"
jit.off()
ffi.cdef [[
struct gc_truth_time { long seconds, nanoseconds; };
int clock_gettime(int clock, struct gc_truth_time *time);
]]
local C, gc, now = ffi.C, collectgarbage, ffi.new "struct gc_truth_time"
local CLOCK_MONOTONIC = 1

local function clock()
	C.clock_gettime(CLOCK_MONOTONIC, now)
	return tonumber(now.seconds) * 1e9 + tonumber(now.nanoseconds)
end

local kept = {}

-- Something that lives, and something that does not, of many shapes.
local function litter(round)
	for i = 1, 4000 do
		kept[(round * 31 + i) % 6000] = { i, tostring(round * i), { round } }
		local _ = { name = "garbage " .. i .. round, list = { i, round } }
	end
	return kept
end

-- Sum of empty measures. One that took four times the shortest was interrupted: it counts as that.
local shortest = math.huge

local function empty_measure(argument)
	local t0 = clock()
	gc("isrunning", argument)
	local ns = clock() - t0
	shortest = math.min(shortest, ns)
	return ns < shortest * 4 and ns or shortest
end

-- One cycle: one call that collects all, or steps until one says that the cycle is complete.
local function cycle(what, argument)
	local calls, sum, empty = 0, 0, 0
	repeat
		empty = empty + empty_measure(argument)
		local t0 = clock()
		local is_done = gc(what, argument)
		sum = sum + clock() - t0
		gc "stop"
		calls = calls + 1
	until is_done
	return calls, sum, empty
end

return function()
	local args = ngx.req.get_uri_args()
	local cycles, argument = tonumber(args.cycles), tonumber(args.argument) or 0
	local calls, sum, empty = 0, 0, 0
	gc "stop"
	for round = 1, cycles do
		litter(round)
		local n, ns, empty_ns = cycle(args.what, argument)
		calls, sum, empty = calls + n, sum + ns, empty + empty_ns
	end
	ngx.say(string.format('{"cycles":%d,"calls":%d,"ns":%.0f,"empty_ns":%.0f}', cycles, calls, sum,
			      empty))
end
