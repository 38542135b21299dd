-- SPDX-License-Identifier: Apache-2.0
-- For lua-cost.b, inside nginx: nanoseconds of each operation, the median of ROUNDS, and a check
-- that what was counted is there. One JSON line.
local ffi = require "ffi"
local tg = require "resty.tidegate"

ffi.cdef [[
typedef struct { long s, ns; } bench_time;
int bench_clock(int, bench_time *) __asm__("clock_gettime");
]]
local ts = ffi.new "bench_time"
local function now_ns()
	ffi.C.bench_clock(2, ts) -- CPU time of the process: others run beside us
	return tonumber(ts.s) * 1e9 + tonumber(ts.ns)
end

local ROUNDS = 9

local function measure(n, fn)
	local took = {}
	fn(n) -- compiled
	for i = 1, ROUNDS do
		local begun = now_ns()
		fn(n)
		took[i] = (now_ns() - begun) / n
	end
	table.sort(took)
	return took[(ROUNDS + 1) / 2], n * (ROUNDS + 1)
end

local result = {}
local plain = tg.counter("bench_plain_total"):with()
local labelled = tg.counter("bench_labelled_total", { "route", "status" }):with("/pay", "200")
local gauge = tg.gauge("bench_gauge"):with()
local duration = tg.histogram("bench_seconds", { "route" }):with("/pay")
local dict = ngx.shared.bench
local counted

result.counter, counted = measure(2e7, function(n) for _ = 1, n do plain:inc() end end)
assert(plain:get() == counted)
result.labelled, counted = measure(2e7, function(n) for _ = 1, n do labelled:inc() end end)
assert(labelled:get() == counted)
result.gauge = measure(2e7, function(n) for i = 1, n do gauge:set(i) end end)
assert(gauge:get() == 2e7)
-- Durations of 1 us to 4 s, in no order that a branch predictor could learn.
local values = ffi.new "double[4096]"
for i = 0, 4095 do values[i] = 1e-6 * 2 ^ (i * 2654435761 % 4096 / 4096 * 22) end
result.histogram = measure(4e6, function(n)
	for i = 1, n do duration:observe(values[i % 4096]) end
end)
local same = ffi.new "double[4096]"
for i = 0, 4095 do same[i] = 0.0021 + i * 1e-7 end -- as the latencies of one route are
result.histogram_near = measure(4e6, function(n)
	for i = 1, n do duration:observe(same[i % 4096]) end
end)
dict:set("key", 0)
result.incr, counted = measure(1e6, function(n) for _ = 1, n do dict:incr("key", 1) end end)
assert(dict:get("key") == counted)
result.get = measure(1e6, function(n) for _ = 1, n do dict:get("key") end end)
assert(require "resty.tidegate.worker".start(tg, { dicts = { "bench" } }))
result.get_counted = measure(1e6, function(n) for _ = 1, n do dict:get("key") end end)
local hits = tg.counter("tidegate_lua_shdict_hits_total", { "dict" }):with "bench"
assert(hits:get() == 1e6 * (ROUNDS + 1))
result.log = measure(2e5, function(n) for _ = 1, n do tg.log() end end)
local file = tg.region().path
local line = {}
for name, value in pairs(result) do line[#line + 1] = ('"%s":%.3f'):format(name, value) end
ngx.say("{", table.concat(line, ","), ',"file":"', tostring(file), '"}')
