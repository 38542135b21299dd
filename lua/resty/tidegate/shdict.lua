-- SPDX-License-Identifier: Apache-2.0
-- lua_shared_dict: size, what is free of it, and how often a key was found. get() and get_stale()
-- of a dictionary are wrapped in the worker's own table of it; who took the function out of it
-- before (local get = ngx.shared.x.get) is not counted.
local M = {}
local told = {}

-- A value that expired is none, though get_stale() gives it. An error is neither.
local function counted(dict, hits, misses)
	local get, get_stale = dict.get, dict.get_stale
	dict.get = function(self, key)
		local value, flags = get(self, key)
		if value ~= nil then
			hits:inc()
		elseif flags == nil then
			misses:inc()
		end
		return value, flags
	end
	dict.get_stale = function(self, key)
		local value, flags, is_stale = get_stale(self, key)
		if value ~= nil and not is_stale then
			hits:inc()
		elseif value ~= nil or flags == nil then
			misses:inc()
		end
		return value, flags, is_stale
	end
end

local function add(tg, name, dict, has_hits)
	local one = { dict = dict }
	if pcall(dict.capacity, dict) then
		one.bytes = tg.gauge("tidegate_lua_shdict_bytes", { "dict" }, "", "max"):with(name)
	end
	if pcall(dict.free_space, dict) then -- nginx 1.11.7
		one.free = tg.gauge("tidegate_lua_shdict_free_bytes", { "dict" }, "", "max"):with(name)
	end
	told[#told + 1] = one
	if not has_hits then return end
	counted(dict, tg.counter("tidegate_lua_shdict_hits_total", { "dict" }):with(name),
		tg.counter("tidegate_lua_shdict_misses_total", { "dict" }):with(name))
end

-- names: a list, or nil for every dictionary.
function M.start(tg, names, has_hits)
	local wanted = {}
	for _, name in ipairs(names or {}) do
		wanted[name] = true
		if not ngx.shared[name] then
			ngx.log(ngx.ERR, "tidegate: no lua_shared_dict ", tostring(name))
		end
	end
	for name, dict in pairs(ngx.shared or {}) do
		if not names or wanted[name] then add(tg, name, dict, has_hits) end
	end
	M.record()
end

function M.record()
	for _, one in ipairs(told) do
		if one.bytes then one.bytes:set(one.dict:capacity()) end
		if one.free then one.free:set(one.dict:free_space()) end
	end
end

return M
