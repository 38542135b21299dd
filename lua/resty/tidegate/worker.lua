-- SPDX-License-Identifier: Apache-2.0
-- tg.start(): what a worker does once a second. It says that it lives, records Lua's own numbers
-- and sees whether a profile is wanted. An error in it is logged and ends nothing.
local profile = require "resty.tidegate.profile"
local shdict = require "resty.tidegate.shdict"
local vm = require "resty.tidegate.vm"

local INTERVAL, DEAD_AFTER, COMPLAIN_EVERY = 1, 5, 60

local M = {}
local hooks = {}
local tg, started_in
local ticked_at, complained_at = 0, -COMPLAIN_EVERY

-- What goes on for long is said once a minute.
local function complain(level, text)
	local now = ngx.now()
	if now - complained_at < COMPLAIN_EVERY then return end
	complained_at = now
	ngx.log(level, "tidegate: ", text)
end

local function turn(is_last)
	local done, why = tg.heartbeat()
	if not done then complain(ngx.WARN, why .. " (counting goes on, and is told later)") end
	vm.record()
	shdict.record()
	profile.look(tg.region(), tg.record(), is_last)
	for _, hook in ipairs(hooks) do hook() end
end

local function tick(premature)
	ticked_at = ngx.now()
	local done, why = pcall(turn, premature)
	if not done then complain(ngx.ERR, tostring(why)) end
end

local function schedule()
	ticked_at = ngx.now()
	local done, why = ngx.timer.every(INTERVAL, tick)
	if not done then complain(ngx.ERR, "no timer: " .. tostring(why)) end
	return done and true or nil, why
end

-- A function of the module's own that is called at each turn.
function M.each_turn(hook) hooks[#hooks + 1] = hook end

-- nginx forgets a repeating timer when there is no place for its next turn
-- (lua_max_pending_timers). Called for each request by tg.log().
function M.revive()
	if started_in and ngx.now() - ticked_at > DEAD_AFTER and not ngx.worker.exiting() then
		schedule()
	end
end

-- In init_worker_by_lua, also of the privileged agent; the second call does nothing. true, or nil
-- and why there is no timer. Without an agent nothing is lost: the file is tried again each
-- second.
--   dicts  names of the lua_shared_dicts that are told of; all of them
--   hits   false: their hits and misses are not counted (nothing is wrapped)
function M.start(module, o)
	local pid = ngx.worker.pid()
	if started_in == pid then return true end
	tg, started_in = module, pid
	local done, why = tg.attach()
	if not done then complain(ngx.WARN, why .. " (counting goes on, and is told later)") end
	vm.start(tg)
	shdict.start(tg, o.dicts, o.hits ~= false)
	return schedule()
end

return M
