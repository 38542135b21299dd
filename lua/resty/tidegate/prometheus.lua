-- SPDX-License-Identifier: Apache-2.0
-- The calls of nginx-lua-prometheus on top of resty.tidegate, so that a gateway changes one line:
--
--   prometheus = require("resty.tidegate.prometheus").init("prometheus_metrics")
--
-- What differs: histograms are of durations and exact, so buckets are ignored; names get the _total
-- or _seconds that they lack (_ms are divided by 1000); nothing can be deleted but gauges;
-- collect() asks the agent and prints this gateway's metrics (lua/README.md). What cannot be had is
-- logged and counts as a metric error.
local scrape = require "resty.tidegate.scrape"
local tg = require "resty.tidegate"
local worker = require "resty.tidegate.worker"

local ERRORS = "nginx_metric_errors_total"
local COMBINATIONS_MAX = 4096

-- A histogram of these is none of durations.
local OTHER_UNITS = { "_bytes$", "_size$", "_ratio$", "_percent$" }

local M = {}
local prometheus = {}
prometheus.__index = prometheus
local metric = {}
metric.__index = metric

-- The first use of a gauge says what it is: workers' values that are added to are summed, of those
-- that are set the last one counts.
local function declare(m, merge)
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
local function key_of(m, key) return "tidegate\0" .. m.full_name .. "\0" .. key end

local function forget_old(self)
	for _, m in pairs(self.registered) do
		for key, cell in pairs(m.ours) do
			local owner = self.dict_get(self.dict, key_of(m, key))
			if owner and owner ~= ngx.worker.pid() then
				cell:clear()
				m.ours[key] = nil
			end
		end
	end
end

-- The other one needs no call in the worker, so the first value makes the file and the timer.
local function start(self)
	if ngx.get_phase() == "init" then return end
	self.is_started = true
	tg.start()
	if self.dict then worker.each_turn(function() forget_old(self) end) end
end

-- Bound once for each combination of values; nil where these values cannot be.
local function bound(m, values, merge)
	values = values or {}
	if not m.parent.is_started then start(m.parent) end
	local key = joined(values)
	local cell = m.cells[key]
	if cell then return cell end
	if #values ~= #m.labels then
		m.parent:log_error(("%s: %d label values, %d are needed"):format(m.name, #values, #m.labels))
		return nil
	end
	local declared = declare(m, merge)
	if not declared then return nil end
	if m.cell_count == COMBINATIONS_MAX then m.cells, m.cell_count = {}, 0 end
	cell = declared:with(unpack(values))
	m.cells[key], m.cell_count = cell, m.cell_count + 1
	return cell
end

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
		local key = joined(labels or {})
		local rest = (m.rests[key] or 0) + value - whole
		if rest >= 1 then rest, whole = rest - 1, whole + 1 end
		m.rests[key] = rest
	end
	cell:add(whole)
end

function metric:inc(value, labels)
	local cell = bound(self, labels, "sum")
	value = cell and number(self, value, 1)
	if not value then return end
	if self.kind == "counter" then count(self, cell, value, labels) else cell:add(value) end
end

function metric:set(value, labels)
	local cell = bound(self, labels, "last")
	value = cell and number(self, value)
	if not value then return end
	cell:set(value)
	local dict, key = self.parent.dict, joined(labels or {})
	self.ours[key] = cell
	if dict then dict:set(key_of(self, key), ngx.worker.pid()) end
end

function metric:observe(value, labels)
	local cell = bound(self, labels)
	value = cell and number(self, value)
	if value then cell:observe(value * self.scale) end
end

-- This worker has no value of it until it is set again; what was counted stays.
function metric:del(labels)
	if self.kind ~= "gauge" then
		return self.parent:log_error(self.name .. ": what was counted cannot be deleted")
	end
	local cell = self.cells[joined(labels or {})]
	if cell then cell:clear() end
end

function metric:reset()
	if self.kind ~= "gauge" then
		return self.parent:log_error(self.name .. ": what was counted cannot be reset")
	end
	for _, cell in pairs(self.cells) do cell:clear() end
end

local METHODS = {
	counter = { "inc", "del", "reset" },
	gauge = { "inc", "set", "del", "reset" },
	histogram = { "observe", "reset" },
}

local function with_suffix(name, suffix)
	return name:sub(-#suffix) == suffix and name or name .. suffix
end

-- A script goes on with it; each call is an error that is counted.
local function inert(self, kind, why)
	self:log_error(why)
	local m = {}
	for _, method in ipairs(METHODS[kind]) do m[method] = function() self.errors:inc() end end
	return m
end

local function name_for(m, kind, full)
	m.full_name = full
	if kind == "counter" then m.full_name = with_suffix(full, "_total") end
	if kind ~= "histogram" then return nil end
	for _, unit in ipairs(OTHER_UNITS) do
		if full:find(unit) then return full .. ": histograms are of durations" end
	end
	local stem = full:match "^(.*)_ms$" or full:match "^(.*)_milliseconds$"
	m.scale = stem and 0.001 or 1
	m.full_name = with_suffix(stem or full, "_seconds")
	return nil
end

local function register(self, kind, name, help, labels)
	if type(name) ~= "string" then return inert(self, kind, "a metric without a name") end
	local full = self.prefix .. name
	if self.registered[full] then return inert(self, kind, "duplicate metric " .. full) end
	local m = { kind = kind, name = full, help = help, labels = labels or {}, parent = self,
		cells = {}, cell_count = 0, rests = {}, ours = {} }
	local why = name_for(m, kind, full)
	if why then return inert(self, kind, why) end
	for _, method in ipairs(METHODS[kind]) do m[method] = metric[method] end
	if kind ~= "gauge" and not declare(m, nil) then
		return inert(self, kind, full .. " is not told")
	end
	self.registered[full] = m
	return m
end

function prometheus:counter(...) return register(self, "counter", ...) end
function prometheus:gauge(...) return register(self, "gauge", ...) end
function prometheus:histogram(...) return register(self, "histogram", ...) end

function prometheus:log_error(text)
	if not self.is_started then start(self) end
	ngx.log(ngx.ERR, "tidegate: ", text)
	self.errors:inc()
end

-- Lines of this gateway's metrics, as the agent has them; none where it does not answer.
function prometheus:metric_data()
	local names = { [self.error_name] = true }
	for _, m in pairs(self.registered) do names[m.full_name] = true end
	local lines, why = scrape.lines(self.agent, names, tg.record())
	if not lines then self:log_error(why) end
	return lines or {}
end

function prometheus:collect()
	ngx.header["Content-Type"] = "text/plain"
	ngx.print(self:metric_data())
end

-- The other one's; there is nothing to do.
function prometheus:init_worker() return self end

-- dict_name: its dictionary only remembers which worker set a gauge last. options: prefix and
-- error_metric_name as there; agent, "127.0.0.1:9465".
-- A text is the prefix. In init_by_lua or init_worker_by_lua.
function M.init(dict_name, options)
	if type(options) == "string" then options = { prefix = options } end
	options = options or {}
	local dict = ngx.shared[dict_name or "prometheus_metrics"]
	local self = setmetatable({ registered = {}, prefix = options.prefix or "",
		error_name = with_suffix(options.error_metric_name or ERRORS, "_total"),
		agent = options.agent or "127.0.0.1:9465", initialized = true,
		dict = dict, dict_get = dict and dict.get }, prometheus) -- before its hits are counted
	self.errors = tg.counter(self.error_name, {}, "Number of nginx-lua-prometheus errors"):with()
	start(self)
	return self
end

return M
