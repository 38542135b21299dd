-- SPDX-License-Identifier: Apache-2.0
-- Metrics of a gateway that runs LuaJIT, in shared memory that the Tidegate agent reads: OpenResty,
-- Kong, APISIX, nginx with the Lua module. Nothing to compile, nothing to lock. See lua/README.md.
--
--   local tg = require "resty.tidegate"
--   local orders = tg.counter("orders_total", { "route" }, "Orders taken."):with("/pay")
--   orders:inc()
--
-- Declare and bind anywhere (init_by_lua is best), once; a bound series is one address in memory.
-- init_worker_by_lua: tg.start(). Durations are in seconds; counters hold whole numbers below 2^64.
local ffi = require "ffi"
local histogram = require "resty.tidegate.histogram"
local host = require "resty.tidegate.host"
local names = require "resty.tidegate.names"
local region = require "resty.tidegate.region"

local M = { _VERSION = "0.1.0" }

local COUNTER, GAUGE, HISTOGRAM = 0, 1, 2
local KINDS = { [0] = "counter", "gauge", "histogram" }
local MERGES = { sum = 0, max = 1, last = 2 }
local HELP_MAX = 512
local OVERFLOW = "_overflow"

local options = {}
local r -- the region; made when it is first needed
local metrics = {}
local series = {} -- by metric and labels as encoded: cell
local histogram_count = 0
local nowhere = ffi.new("uint64_t[?]", region.HIST_CELLS)

-- ---- values: what a bound series can do ----

ffi.cdef [[
typedef struct { uint64_t v; } tidegate_counter_cell;
typedef struct { double v; } tidegate_gauge_cell;
typedef struct { uint64_t v[323]; } tidegate_histogram_cell;
]]
local cell_of = histogram.cell
local counter = {}
function counter:inc() self.v = self.v + 1ULL end
-- by: a whole number, not negative.
function counter:add(by) self.v = self.v + by end
function counter:get() return tonumber(self.v) end
local gauge = {}
function gauge:set(value) self.v = value end
function gauge:add(by)
	local v = self.v
	self.v = (v == v and v or 0) + by
end
function gauge:get() return self.v end
-- This worker has no value until the next set() or add().
function gauge:clear() self.v = 0 / 0 end
local duration = {}
function duration:observe(seconds)
	local j = cell_of(seconds * 1e9)
	self.v[j] = self.v[j] + 1ULL
end
ffi.metatype("tidegate_counter_cell", { __index = counter })
ffi.metatype("tidegate_gauge_cell", { __index = gauge })
ffi.metatype("tidegate_histogram_cell", { __index = duration })
local types = {
	[COUNTER] = ffi.typeof "tidegate_counter_cell *",
	[GAUGE] = ffi.typeof "tidegate_gauge_cell *",
	[HISTOGRAM] = ffi.typeof "tidegate_histogram_cell *",
}

-- ---- where they lie ----

-- Before anything is declared. runtime_dir, gateway (how it is called where the agent cannot tell),
-- series (2000), histograms (64) of them.
function M.init(o)
	if r then error("tidegate: init() comes before the first metric", 2) end
	options = o or {}
	return M
end

local function integer(name, value, least, most)
	if type(value) ~= "number" or value % 1 ~= 0 or value < least or value > most then
		error(("tidegate: %s is %s: a whole number from %d to %d is needed")
			:format(name, tostring(value), least, most), 4)
	end
	return value
end

local function here()
	if r then return r end
	local dir = options.runtime_dir or os.getenv "TIDEGATE_RUNTIME_DIR" or "/run/tidegate"
	local most = integer("series", options.series or 2000, 16, 400000)
	M.runtime_dir = dir
	local histograms = integer("histograms", options.histograms or 64, 0, most)
	r = region.new(dir .. "/app", options.gateway or "", most, histograms)
	return r
end

-- In a worker. Makes the file; true, or nil and why (counting goes on, the file is tried again).
function M.attach() return here():attach() end
function M.heartbeat() return here():heartbeat() end
function M.region() return here() end

-- ---- series ----

local metric = {}
metric.__index = metric

-- Some room is for overflow series alone.
local function has_room(m, is_overflow)
	local h = r.h
	local spare = is_overflow and 0 or math.floor(h.directory_capacity / 16)
	if h.directory_count + spare >= h.directory_capacity then return false end
	if m.kind ~= HISTOGRAM then return true end
	return histogram_count + (is_overflow and 0 or math.floor(r.histograms / 8)) < r.histograms
end

local function append(m, labels)
	local h = r.h
	local cell, count = tonumber(h.cells_used), 1
	if m.kind == HISTOGRAM then cell, count = math.ceil(cell / 8) * 8, region.HIST_CELLS end
	if cell + count > tonumber(h.cells_capacity) then return nil end
	local at = #labels > 0 and r:add_text(labels:sub(1, -2)) or 0
	if not at then return nil end
	local d = r.directory[h.directory_count]
	d.state, d.kind, d.merge, d.scope = 1, m.kind, m.merge, 0
	d.name_offset, d.name_bytes = m.name_at, #m.name
	d.unit_offset, d.unit_bytes = m.unit_at, #m.unit
	d.help_offset, d.help_bytes = m.help_at, #m.help
	d.labels_offset, d.labels_bytes = at, #labels
	d.value_cell, d.cell_count = cell, count
	h.cells_used = cell + count
	h.directory_count = h.directory_count + 1 -- last: it makes the rest visible
	if m.kind == HISTOGRAM then histogram_count = histogram_count + 1 end
	return ffi.cast(types[m.kind], r.cells + cell)
end

local function find(m, labels, is_overflow)
	local key = m.name .. "\0" .. labels
	local cell = series[key]
	if not cell and has_room(m, is_overflow) then
		cell = append(m, labels)
		series[key] = cell
	end
	return cell, key
end

local function encode(m, value_of)
	local parts = {}
	for i, label in ipairs(m.labels) do parts[i] = label .. "\0" .. value_of(i) .. "\0" end
	return table.concat(parts)
end

-- As with(), and a text that stands for the series: nil where it is not theirs alone.
function metric:bind(...)
	if select("#", ...) ~= #self.labels then
		error(("tidegate: metric %s: %d label values, %d are needed")
			:format(self.name, select("#", ...), #self.labels), 3)
	end
	local values = { ... }
	local cell, key = find(self, encode(self, function(i) return names.clean(values[i]) end))
	if cell then return cell, key end
	r.h.refused = r.h.refused + 1ULL
	cell = #self.labels > 0 and find(self, encode(self, function() return OVERFLOW end), true)
	return cell or ffi.cast(types[self.kind], nowhere), nil
end

-- The series of these label values: bind once, keep it. Without room it is the one whose values are
-- all "_overflow", or counts nowhere; never nil, never raises but for a wrong number of values.
function metric:with(...)
	local cell = self:bind(...)
	return cell
end

local function same(m, kind, labels)
	if m.kind ~= kind or #m.labels ~= #labels then return false end
	for i, label in ipairs(labels) do if m.labels[i] ~= label then return false end end
	return true
end

local function declare(kind, name, labels, help, merge)
	labels, help = labels or {}, tostring(help or ""):gsub("%z.*", ""):sub(1, HELP_MAX)
	names.check(name, KINDS[kind])
	names.check_labels(name, labels)
	local m = metrics[name]
	if m then
		if not same(m, kind, labels) then
			error(("tidegate: metric %s: declared before with another kind or other labels")
				:format(name), 3)
		end
		return m
	end
	here()
	m = setmetatable({ name = name, kind = kind, merge = merge, labels = labels, help = help,
		unit = kind == HISTOGRAM and "seconds" or "" }, metric)
	m.name_at, m.unit_at, m.help_at = r:add_text(name), r:add_text(m.unit), r:add_text(help)
	if not m.help_at then
		error(("tidegate: metric %s: no room for its name; allow more series"):format(name), 3)
	end
	metrics[name] = m
	return m
end

-- Declares a metric, or finds the one declared before. Labels: a list of names. A counter's name
-- ends in _total, a histogram's in _seconds. merge: how values of several workers become one:
-- "sum" "max" "last".
function M.counter(name, labels, help) return declare(COUNTER, name, labels, help, MERGES.sum) end
function M.histogram(name, labels, help)
	return declare(HISTOGRAM, name, labels, help, MERGES.sum)
end
function M.gauge(name, labels, help, merge)
	local how = MERGES[merge or "sum"]
	if not how then
		error("tidegate: gauge " .. tostring(name) .. ": merge is one of sum, max, last", 2)
	end
	return declare(GAUGE, name, labels, help, how)
end

-- ---- the gateway ----

-- True while a drain keeps this gateway out of service: answer `Connection: close`.
function M.draining() return host.is_draining(here(), options.gateway) end
function M.record() return (host.record(here(), options.gateway)) end

-- In header_filter_by_lua: while a drain lasts, HTTP/1 clients are told to come back by another
-- connection. Those of HTTP/2 are told by the gateway's own end.
function M.drain_header()
	if host.is_draining(here(), options.gateway) then ngx.header.connection = "close" end
end

-- In init_worker_by_lua: makes the file, and a timer that says each second how Lua does.
function M.start(o) return require "resty.tidegate.worker".start(M, o or {}) end

-- In log_by_lua. route: a name, or a function that gives it.
local handler
function M.log(o)
	handler = handler or require "resty.tidegate.log".handler(M)
	return handler(o)
end

return M
