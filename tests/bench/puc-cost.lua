-- SPDX-License-Identifier: Apache-2.0
-- Nanoseconds of one call through the C module, the loop around it taken off: three medians of nine
-- on one line, for counter:inc(), gauge:set() and histogram:observe(). Calls are methods of a
-- local, as a script writes them.
package.cpath = os.getenv "CPATH"
local tg = require "tidegate"
local TURNS, ROUNDS = 2000000, 9

local counter = tg.counter("orders_total", { "route", "code" }):with("/pay", 200)
local gauge = tg.gauge("depth"):with()
local histogram = tg.histogram("wait_seconds", { "route" }):with "/pay"

local function cpu(f)
	local before = os.clock()
	f()
	return (os.clock() - before) / TURNS * 1e9
end
local function empty() for i = 1, TURNS do local _ = i end end
local runs = {
	function() for _ = 1, TURNS do counter:inc() end end,
	function() for i = 1, TURNS do gauge:set(i) end end,
	function() for i = 1, TURNS do histogram:observe(i * 1e-7) end end,
}

local out = {}
for i, run in ipairs(runs) do
	local took = {}
	for round = 1, ROUNDS do took[round] = cpu(run) - cpu(empty) end
	table.sort(took)
	out[i] = ("%.1f"):format(took[(ROUNDS + 1) // 2])
end
assert(counter:get() == TURNS * ROUNDS)
print(table.concat(out, " "))
