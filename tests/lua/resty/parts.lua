-- SPDX-License-Identifier: Apache-2.0
-- Parts of resty.tidegate that need no gateway, in nginx's LuaJIT: TAP on standard output.
local ffi = require "ffi"

local count = 0
local function ok(is_so, name, why)
	count = count + 1
	io.write(is_so and "ok " or "not ok ", count, " - ", name, "\n")
	if not is_so then io.write("# ", tostring(why), "\n") end
end
local function is(got, wanted, name)
	ok(got == wanted, name, ("got %s, wanted %s"):format(tostring(got), tostring(wanted)))
end
local function raises(pattern, name, fn, ...)
	local done, why = pcall(fn, ...)
	ok(not done and tostring(why):find(pattern), name, why)
end

-- ---- the histogram is libtidegate's, threshold for threshold ----

local histogram = require "resty.tidegate.histogram"
ffi.cdef "unsigned int tidegate_cell(uint64_t ns);"
local C = ffi.load(os.getenv "BUILD" .. "/libtidegate.so.1")
local wrong, tried = nil, 0
local function try(ns)
	tried = tried + 1
	local got, wanted = histogram.cell(ns), C.tidegate_cell(ns)
	if got ~= wanted then wrong = ("%.0f ns: %d, libtidegate says %d"):format(ns, got, wanted) end
end
for j = 0, 321 do
	local t = tonumber(histogram.thresholds[j])
	for _, by in ipairs { -1, 0, 1 } do if t + by >= 0 then try(t + by) end end
end
is(tried, 965, "every threshold and its neighbours, but for -1")
math.randomseed(7)
for _ = 1, 100000 do try(math.floor(2 ^ (math.random() * 43))) end
ok(not wrong, "the cell of each of them, and of 100000 durations", wrong)
is(histogram.cell(-5), 0, "what is negative is in the first")
is(histogram.cell(0 / 0), 0, "NaN too")
is(histogram.cell(1e30), 322, "beyond all is in the last")
is(histogram.cell(math.huge), 322, "infinity too")

-- ---- names and values ----

local names = require "resty.tidegate.names"
raises("not a name", "a name with a dash", names.check, "a-b", "gauge")
raises("not a name", "a name of 129 bytes", names.check, ("a"):rep(129), "gauge")
raises("must end in _total", "a counter without _total", names.check, "orders", "counter")
raises("must end in _seconds", "a histogram without _seconds", names.check, "took_ms", "histogram")
local nine = { "a", "b", "c", "d", "e", "f", "g", "h", "i" }
raises("at most 8", "nine labels", names.check_labels, "m", nine)
raises("there twice", "a label twice", names.check_labels, "m", { "a", "a" })
raises("no name of a label", "a label that begins with __", names.check_labels, "m",
	{ "__a" })
is(names.clean "plain", "plain", "a plain value")
is(names.clean "a\0b", "a", "a value ends at NUL")
is(names.clean "x\255\195\164y", "x?\195\164y", "bytes that are no text")
is(#names.clean(("\195\164"):rep(200)), 254, "cut between characters")
is(names.clean(nil), "nil", "a value that is none")

-- ---- series: overflow, in private memory ----

local tg = require "resty.tidegate"
raises("a whole number", "init() checks", function()
	tg.init({ series = 3 }).counter "a_total"
end)
tg.init { runtime_dir = "/nonexistent", series = 32, histograms = 4 }
local c = tg.counter("many_total", { "n" })
for i = 1, 100 do c:with(i):inc() end
local over = c:with "_overflow"
local without_room = 100 - (tonumber(tg.region().h.directory_count) - 1)
is(over:get(), without_room, "what finds no room is in _overflow")
is(tonumber(tg.region().h.refused), without_room, "and counted as refused")
local sum = over:get()
for i = 1, 100 do
	local cell = c:with(i)
	if cell ~= over then sum = sum + cell:get() end
end
is(sum, 100, "none is lost")
local h = tg.histogram("h_seconds", { "n" })
for i = 1, 10 do h:with(i):observe(1) end
ok(pcall(function() h:with "x":observe(1) end), "histograms without room count nowhere")
raises("declared before", "another kind of the same name", tg.gauge, "many_total", { "n" })
raises("declared before", "other labels", tg.counter, "many_total", { "m" })
raises("values, 1 are needed", "too many values", c.with, c, 1, 2)
local g = tg.gauge "g":with()
g:set(2) g:add(3)
is(g:get(), 5, "a gauge")
g:clear()
ok(g:get() ~= g:get(), "cleared it is NaN")
g:add(4)
is(g:get(), 4, "and begins at 0 again")
local done, why = tg.attach()
ok(done == nil and why:find "/nonexistent/app", "no directory: said, not raised", why)

-- ---- times of upstreams ----

local time = require "resty.tidegate.log".upstream_time
is(time "0.250", 0.25, "one try")
is(time "0.250, 0.5 : 1.25", 2, "tries and internal redirects are summed")
is(time "-", nil, "none")
is(time "-, 0.5", 0.5, "one that was not reached")
is(time "0.1, . : x", 0.1, "what is no number is nothing")

-- ---- the Prometheus calls: what clients choose takes no memory without end ----

local prometheus = require "resty.tidegate.prometheus".init()
local function entries(t)
	local n = 0
	for _ in pairs(t) do n = n + 1 end
	return n
end
local level = prometheus:gauge("level_of", "", { "client" })
local volume = prometheus:counter("volume_total", "", { "client" })
for i = 1, 5000 do
	level:set(i, { i })
	volume:inc(0.5, { i })
end
is(entries(level.ours), 0, "gauges that found no room are nobody's")
is(entries(volume.rests), 1, "parts of what found no room are added up in one place")
local many = prometheus:counter("many_total", "", { "n" })
local had = c:with(1):get()
for i = 1, 100 do many:inc(0.5, { "1\0" .. i }) end
is(c:with(1):get() - had, 50, "values that are one series when they are cleaned count there")
is(entries(many.rests), 1, "and parts of them in one place")

-- ---- the agent's answer: its memory may go while it is waited for ----

local record = ffi.new "tidegate_gateway"
ffi.copy(record.instance, "host/1")
local answers = {
	"HTTP/1.0 200 OK\r\n\r\n# TYPE x_total counter\n" ..
	"x_total{instance=\"host/1\"} 1\nx_total{instance=\"host/2\"} 2\n" ..
	"y_total{instance=\"host/1\"} 3\n",
}
local sock = {
	settimeout = function() end, close = function() end,
	connect = function() return true end,
	send = function() ffi.copy(record.instance, "host/2") return true end,
	receive = function() return table.remove(answers), "closed", "" end,
}
local socket = ngx.socket
ngx.socket = { tcp = function() return sock end } -- luacheck: ignore 122
local lines = require "resty.tidegate.scrape".lines("127.0.0.1:9", { x_total = true }, record)
ngx.socket = socket -- luacheck: ignore 122
is(table.concat(lines), "# TYPE x_total counter\nx_total{instance=\"host/1\"} 1\n",
	"lines of the gateway that asked")

io.write("1..", count, "\n")
io.flush()
os.exit(0)
