-- SPDX-License-Identifier: Apache-2.0
-- Does a known number of collection cycles and times each call itself, by a clock in nanoseconds.
-- The collector is stopped in between, so that no other step is ever made. Answers with one JSON
-- line:
-- {"cycles":N,"calls":N,"ns":TIME OF ALL,"empty_ns":TIME OF AS MANY EMPTY MEASURES}.
local clock = ...
local gc = collectgarbage

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

return function(cycles, what, argument)
	local calls, sum, empty = 0, 0, 0
	gc "stop"
	for round = 1, cycles do
		litter(round)
		local n, ns, empty_ns = cycle(what, argument)
		calls, sum, empty = calls + n, sum + ns, empty + empty_ns
	end
	return ('{"cycles":%d,"calls":%d,"ns":%.0f,"empty_ns":%.0f}'):format(cycles, calls, sum, empty)
end
