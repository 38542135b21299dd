-- SPDX-License-Identifier: Apache-2.0
-- The C module as a script sees it, and its segment as a reader sees it (proto/segment.h).
package.cpath = os.getenv "CPATH"
local tg = require "tidegate"

local dir = os.getenv "TIDEGATE_RUNTIME_DIR"

local function check(ok, name, why)
	print((ok and "ok" or "not ok") .. " - " .. name)
	if not ok and why then print("# " .. tostring(why)) end
end
local function equal(got, wanted, name)
	check(got == wanted, name, ("got %s, wanted %s"):format(tostring(got), tostring(wanted)))
end
local function refuses(pattern, name, f, ...)
	local done, why = pcall(f, ...)
	check(not done and tostring(why):find(pattern), name .. " is refused", why)
end

-- ---- a reader ----

local function segment()
	local pipe = io.popen("cat " .. dir .. "/app/*.seg")
	local bytes = pipe:read "a"
	pipe:close()
	return bytes
end

-- Values by "name{label=value,…}"; a histogram's is how many were counted, and in which cells.
local function values()
	local bytes, all = segment(), {}
	local directory, _, count, heap, _, _, cells = string.unpack("<I8I4I4I8I8I8I8", bytes, 152 + 1)
	for i = 0, count - 1 do
		local _, kind, _, _, _, name, name_size, _, _, _, _, labels, labels_size, cell, cell_count =
			string.unpack("<I4BBBBI4I4I4I4I4I4I4I4I8I4", bytes, directory + i * 64 + 1)
		local key, parts = bytes:sub(heap + name + 1, heap + name + name_size), {}
		for k, v in bytes:sub(heap + labels + 1, heap + labels + labels_size):gmatch "(%Z*)%z(%Z*)%z" do
			parts[#parts + 1] = k .. "=" .. v
		end
		if #parts > 0 then key = key .. "{" .. table.concat(parts, ",") .. "}" end
		local at = cells + cell * 8 + 1
		if kind == 0 then
			all[key] = string.unpack("<i8", bytes, at)
		elseif kind == 1 then
			all[key] = string.unpack("<d", bytes, at)
		else
			local total, where = 0, {}
			for j = 0, cell_count - 1 do
				local n = string.unpack("<i8", bytes, at + j * 8)
				total = total + n
				if n > 0 then where[#where + 1] = j end
			end
			all[key] = total .. " in " .. table.concat(where, ",")
		end
	end
	return all
end

-- ---- before anything is declared ----

refuses("series", "a wrong number of series", tg.init, { series = 3 })
refuses("series: a whole number", "half a series", tg.init, { series = 100.5 })
refuses("gateway: text", "a gateway that is no text", tg.init, { gateway = {} })
refuses("absolute path", "a relative directory", tg.init, { runtime_dir = "here" })
equal(tg.init { gateway = "edge", series = 64, histograms = 8 }, tg, "init returns the module")
refuses("before the first metric", "a second init", tg.init, {})

-- ---- names ----

refuses("_total", "a counter's name without _total", tg.counter, "orders")
refuses("_seconds", "a histogram's name without _seconds", tg.histogram, "wait")
refuses("not a name", "a name that is none", tg.counter, "9_total")
refuses("label 1 is a number", "a label that is no text", tg.counter, "a_total", { 1 })
local nine = { "a", "b", "c", "d", "e", "f", "g", "h", "i" }
refuses("9 labels", "a ninth label", tg.counter, "a_total", nine)
refuses("there twice", "a label twice", tg.counter, "a_total", { "a", "a" })
refuses("mean", "a merge that is none", tg.gauge, "depth", {}, "", "mean")

-- ---- counting ----

local orders = tg.counter("orders_total", { "route", "code" }, "Orders taken.")
local pay = orders:with("/pay", 200)
for _ = 1, 1013 do pay:inc() end
pay:add(7)
orders:with("/pay", "200"):inc() -- the same series
orders:with("a\nb\"c\xff", "4\0 4"):add(3)
equal(pay:get(), 1021, "a counter counts what it was told")
refuses("whole numbers", "half an order", pay.add, pay, 0.5)
refuses("whole numbers", "an order taken back", pay.add, pay, -1)
refuses("whole numbers", "adding nothing at all", pay.add, pay)
refuses("number expected", "a gauge set to nothing", function() tg.gauge("depth"):with():set() end)
refuses("2 are needed", "one label value of two", orders.with, orders, "/pay")
refuses("declared before", "another kind of the same name", tg.gauge, "orders_total")

local depth = tg.gauge("depth", nil, "", "max"):with()
depth:set(2.5)
depth:add(-4)
depth:clear()
check(depth:get() ~= depth:get(), "a gauge that was cleared has no value")
depth:add(-1.5)
equal(depth:get(), -1.5, "a gauge is what it was set to, and added to")
local wait = tg.histogram("wait_seconds", { "route" }):with "/pay"
wait:observe(0.005)
wait:observe(0.005)
wait:observe(-1)
wait:observe(1e9)
refuses("counter:inc", "a method of another kind", pay.inc, wait)
refuses("counter:inc", "a method without its series", pay.inc)
refuses("counter:inc", "a file as a series", pay.inc, io.stdout)
equal(getmetatable(pay), false, "the metatable is not the script's")

local all = values()
equal(all["orders_total{route=/pay,code=200}"], 1021, "and a reader sees it")
equal(all["orders_total{route=a\nb\"c?,code=4}"], 3, "text that is none is cleaned")
equal(all.depth, -1.5, "a reader sees the gauge")
local waited = all["wait_seconds{route=/pay}"]
check(tostring(waited):find "^4 in 0,%d+,322$", "a reader sees the histogram", waited)
check(segment():find("edge", 1, true) == 241, "and how the gateway is called")

-- ---- without room ----

local many = tg.counter("many_total", { "n" })
local counters = {}
for i = 1, 100 do
	counters[i] = many:with(i)
	counters[i]:inc()
end
all = values()
local own = 0
for key in pairs(all) do if key:find "^many_total{n=%d" then own = own + 1 end end
equal(own + all["many_total{n=_overflow}"], 100, "what finds no room is counted as overflow")
check(own > 40 and own < 64, "and most found room", own)

-- ---- the gateway ----

equal(tg.draining(), false, "nobody drains where there is no agent")
equal(tg.heartbeat(), true, "the heartbeat finds its file")
refuses("register_task", "start without HAProxy", tg.start)
local tasks, slept = {}, {}
core = { -- luacheck: globals core
	register_task = function(f) tasks[#tasks + 1] = coroutine.create(f) end,
	msleep = function(ms)
		slept[#slept + 1] = ms
		coroutine.yield()
	end,
}
tg.start()
tg.start()
equal(#tasks, 1, "start makes one task")
check(os.execute("rm " .. dir .. "/app/*.seg"), "(the file goes away)")
coroutine.resume(tasks[1])
equal(values()["orders_total{route=/pay,code=200}"], 1021, "its heartbeat makes it again")
check(coroutine.resume(tasks[1]) and slept[1] == 1000 and slept[2] == 1000, "each second")
check(os.execute("rm -r " .. dir .. "/app"), "(the directory goes away)")
local alive, why = tg.heartbeat()
check(alive == nil and why:find "is the agent installed", "a heartbeat says why it has none", why)

-- Finalizers run in no order: one of somebody else may still count.
local late = setmetatable({}, { __gc = function(self) -- luacheck: ignore
	for _ = 1, 3 do pcall(self.pay.inc, self.pay) end
	pcall(orders.with, orders, "/pay", 200)
end })
late.pay = pay
pay, wait, many, counters = nil, nil, nil, nil -- luacheck: ignore
collectgarbage()
local last = setmetatable({}, { __gc = function() print "# end" end }) -- luacheck: ignore
