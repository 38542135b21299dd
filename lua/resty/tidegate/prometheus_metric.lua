-- SPDX-License-Identifier: Apache-2.0
-- What can be done with one metric of prometheus.lua: label values come with each call, and are
-- bound when they are first seen.
local tg = require "resty.tidegate"
local worker = require "resty.tidegate.worker"

local COMBINATIONS_MAX = 4096
local SHARED = "" -- no series' key

local methods = {}
local M = { methods = methods }

-- The first use of a gauge says what it is: workers' values that are added to are summed, of those
-- that are set the last one counts.
function M.declare(m, merge)
	if m.declared then return m.declared end
	local done, declared = pcall(tg[m.kind], m.full_name, m.labels, m.help, merge)
	if not done then
		m.parent:log_error(declared)
		declared = nil
	end
	m.declared = declared
	return declared
end

local function joined(values)
	if #values == 1 then return tostring(values[1]) end
	local parts = {}
	for i, value in ipairs(values) do parts[i] = tostring(value) end
	return table.concat(parts, "\0")
end

-- Who set a gauge last is in the dictionary: what others set before is not its value any more.
local function key_of(key) return "tidegate\0" .. key end

local function forget_old(self)
	for _, m in pairs(self.registered) do
		for key, cell in pairs(m.ours) do
			local owner = self.dict_get(self.dict, key_of(key))
			if owner and owner ~= ngx.worker.pid() then
				cell:clear()
				m.ours[key] = nil
			end
		end
	end
end

-- The other one needs no call in the worker, so the first value makes the file and the timer.
function M.start(self)
	if ngx.get_phase() == "init" then return end
	self.is_started = true
	tg.start()
	if self.dict then worker.each_turn(function() forget_old(self) end) end
end

-- Bound once for each combination of values; nil where these values cannot be.
local function bound(m, values, merge)
	values = values or {}
	if not m.parent.is_started then M.start(m.parent) end
	local key = joined(values)
	local cell = m.cells[key]
	if cell then return cell end
	if #values ~= #m.labels then
		m.parent:log_error(("%s: %d label values, %d are needed"):format(m.name, #values, #m.labels))
		return nil
	end
	local declared = M.declare(m, merge)
	if not declared then return nil end
	if m.cell_count == COMBINATIONS_MAX then m.cells, m.keys, m.cell_count = {}, {}, 0 end
	m.cells[key], m.keys[key] = declared:bind(unpack(values))
	m.cell_count = m.cell_count + 1
	return m.cells[key]
end

-- Where something is kept beside a series. Clients may choose values, so there are as many places
-- as series; values that found no room share one.
local function place(m, values) return m.keys[joined(values or {})] or SHARED end

local function number(m, value, default)
	if value == nil then value = default end
	value = tonumber(value)
	if not value or value ~= value then
		m.parent:log_error(m.name .. ": the value is no number")
		return nil
	end
	return value
end

-- Counters hold whole numbers: what is behind the point is kept until it is one.
local function count(m, cell, value, labels)
	if value < 0 or value >= 2 ^ 53 then
		m.parent:log_error(m.name .. ": a counter cannot be told " .. value)
		return
	end
	local whole = math.floor(value)
	if whole ~= value then
		local key = place(m, labels)
		local rest = (m.rests[key] or 0) + value - whole
		if rest >= 1 then rest, whole = rest - 1, whole + 1 end
		m.rests[key] = rest
	end
	cell:add(whole)
end

function methods:inc(value, labels)
	local cell = bound(self, labels, "sum")
	value = cell and number(self, value, 1)
	if not value then return end
	if self.kind == "counter" then count(self, cell, value, labels) else cell:add(value) end
end

function methods:set(value, labels)
	local cell = bound(self, labels, "last")
	value = cell and number(self, value)
	if not value then return end
	cell:set(value)
	local dict, key = self.parent.dict, place(self, labels)
	if key == SHARED then return end
	self.ours[key] = cell
	if dict then dict:set(key_of(key), ngx.worker.pid()) end
end

function methods:observe(value, labels)
	local cell = bound(self, labels)
	value = cell and number(self, value)
	if value then cell:observe(value * self.scale) end
end

-- This worker has no value of it until it is set again; what was counted stays.
function methods:del(labels)
	if self.kind ~= "gauge" then
		return self.parent:log_error(self.name .. ": what was counted cannot be deleted")
	end
	local cell = self.cells[joined(labels or {})]
	if cell then cell:clear() end
end

function methods:reset()
	if self.kind ~= "gauge" then
		return self.parent:log_error(self.name .. ": what was counted cannot be reset")
	end
	for _, cell in pairs(self.cells) do cell:clear() end
end

return M
