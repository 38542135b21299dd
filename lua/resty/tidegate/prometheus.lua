-- SPDX-License-Identifier: Apache-2.0
-- The calls of nginx-lua-prometheus on top of resty.tidegate, so that a gateway changes one line:
--
--   prometheus = require("resty.tidegate.prometheus").init("prometheus_metrics")
--
-- What differs: histograms are of durations and exact, so buckets are ignored; names get the _total
-- or _seconds that they lack (_ms are divided by 1000); nothing can be deleted but gauges;
-- collect() asks the agent and prints this gateway's metrics (lua/README.md). What cannot be had is
-- logged and counts as a metric error.
local metric = require "resty.tidegate.prometheus_metric"
local scrape = require "resty.tidegate.scrape"
local tg = require "resty.tidegate"

local ERRORS = "nginx_metric_errors_total"

-- A histogram of these is none of durations.
local OTHER_UNITS = { "_bytes$", "_size$", "_ratio$", "_percent$" }

local M = {}
local prometheus = {}
prometheus.__index = prometheus

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
		cells = {}, keys = {}, cell_count = 0, rests = {}, ours = {} }
	local why = name_for(m, kind, full)
	if why then return inert(self, kind, why) end
	for _, method in ipairs(METHODS[kind]) do m[method] = metric.methods[method] end
	if kind ~= "gauge" and not metric.declare(m, nil) then
		return inert(self, kind, full .. " is not told")
	end
	self.registered[full] = m
	return m
end

function prometheus:counter(...) return register(self, "counter", ...) end
function prometheus:gauge(...) return register(self, "gauge", ...) end
function prometheus:histogram(...) return register(self, "histogram", ...) end

function prometheus:log_error(text)
	if not self.is_started then metric.start(self) end
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
	metric.start(self)
	return self
end

return M
