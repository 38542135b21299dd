-- SPDX-License-Identifier: Apache-2.0
-- Numbers of the Lua machine in this worker: heap, coroutines, what the compiler made. LuaJIT has
-- one listener for compiled traces: with jit.v or jit.dump on, these rows stand still.
local M = {}

local heap, timers, threads -- gauges
local traces, mcode, aborts
local trace_count, mcode_bytes = 0, 0
local alive = setmetatable({}, { __mode = "k" })
local thread_count = 0
local status = coroutine._status or coroutine.status -- luacheck: ignore 143


-- A thread that was killed goes with its coroutine, when that is collected.
local function ended(co, ...)
	if alive[co] then
		alive[co] = nil
		thread_count = thread_count - 1
	end
	return ...
end

local function run(fn, ...)
	local co = coroutine.running()
	alive[co] = true
	thread_count = thread_count + 1
	return ended(co, fn(...))
end

-- Threads that raised or were killed never came to ended().
local function count_threads()
	local n = 0
	for co in pairs(alive) do
		if status(co) == "dead" then alive[co] = nil else n = n + 1 end
	end
	thread_count = n
	return n
end

local function on_trace(what, trace)
	if what == "stop" then
		trace_count = trace_count + 1
		mcode_bytes = mcode_bytes + #(require "jit.util".tracemc(trace) or "")
	elseif what == "abort" then
		aborts:inc()
	elseif what == "flush" then
		trace_count, mcode_bytes = 0, 0
	end
end

-- Those of init_by_lua are there already. 65535 is the most that LuaJIT can number.
local function count_traces(util)
	trace_count, mcode_bytes = 0, 0
	for i = 1, 65535 do
		local code = util.tracemc(i)
		if code then trace_count, mcode_bytes = trace_count + 1, mcode_bytes + #code end
	end
end

function M.start(tg)
	local coroutines = tg.gauge("tidegate_lua_coroutines", { "kind" })
	heap = tg.gauge("tidegate_lua_heap_bytes"):with()
	timers, threads = coroutines:with("timer"), coroutines:with("thread")
	local spawn = ngx.thread.spawn
	ngx.thread.spawn = function(fn, ...) return spawn(run, fn, ...) end -- luacheck: ignore 122
	local found, util = pcall(require, "jit.util")
	if found and jit.attach then
		traces = tg.gauge("tidegate_luajit_traces"):with()
		mcode = tg.gauge("tidegate_luajit_mcode_bytes"):with()
		aborts = tg.counter("tidegate_luajit_aborts_total"):with()
		jit.attach(on_trace, "trace")
		count_traces(util)
	end
	M.record()
end

function M.record()
	heap:set(collectgarbage "count" * 1024)
	timers:set(ngx.timer.running_count())
	threads:set(count_threads())
	if traces then
		traces:set(trace_count)
		mcode:set(mcode_bytes)
	end
end

return M
