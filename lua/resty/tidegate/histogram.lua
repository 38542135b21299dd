-- SPDX-License-Identifier: Apache-2.0
-- The exact histogram of proto/metrics.h: 322 thresholds in nanoseconds, all whole numbers that a
-- double holds exactly. A duration is counted in the first cell whose threshold is not below it.
local ffi = require "ffi"

-- 2^(m/8); the test compares every threshold with the agent's.
local EIGHTHS = { 1, 1.0905077326652577, 1.189207115002721, 1.2968395546510096, 1.4142135623730951,
	1.5422108254079407, 1.681792830507429, 1.8340080864093424 }
local OTEL_MS = { 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000 }
local COUNT = 322

local function table_of()
	local all = {}
	for k = -240, 88 do
		local octave = math.floor((k + 240) / 8) - 30
		all[#all + 1] = math.floor(1e9 * EIGHTHS[(k + 240) % 8 + 1] * 2 ^ octave)
	end
	for _, ms in ipairs(OTEL_MS) do all[#all + 1] = ms * 1e6 end
	table.sort(all)
	local t, n = ffi.new("double[?]", COUNT + 1), 0
	for i, v in ipairs(all) do
		if v ~= all[i - 1] then
			t[n] = v
			n = n + 1
		end
	end
	assert(n == COUNT)
	t[COUNT] = math.huge
	return t
end

local thresholds = table_of()

-- By exponent and the three bits after the highest one: the first cell that can be it.
local starts = ffi.new "uint16_t[512]"
do
	local j = 0
	for e = 0, 63 do
		for m = 0, 7 do
			local least = math.floor((8 + m) * 2 ^ (e - 3))
			while j < COUNT and thresholds[j] < least do j = j + 1 end
			starts[e * 8 + m] = j
		end
	end
end

local bits = ffi.new "union { double d; uint32_t u[2]; }"
local rshift, band = bit.rshift, bit.band
local BIAS = 1023 * 8
local floor = math.floor

local M = { thresholds = thresholds }

-- ns: any number; what is below 1 is counted in the first cell, NaN too.
function M.cell(ns)
	ns = floor(ns)
	if not (ns >= 1) then return 0 end -- luacheck: ignore 581
	if ns > 4e12 then return COUNT end
	bits.d = ns
	local j = starts[band(rshift(bits.u[1], 17), 0x3fff) - BIAS]
	while ns > thresholds[j] do j = j + 1 end
	return j
end

return M
