-- SPDX-License-Identifier: Apache-2.0
-- A profile that `tidegate profile` asked for: where this worker spends CPU time in Lua, by
-- LuaJIT's own sampler, as folded stacks ("root;...;leaf count") in app/<name>.<profile
-- id>.folded. Nothing runs while none is wanted. Compiled code is thrown away at begin and end,
-- as the sampler needs it.
local region = require "resty.tidegate.region"

local MODE = "fi10" -- by function; each 10 ms of CPU time
local DEPTH, BYTES_MAX, LINE_SPARE = 100, 1048576, 24
local MORE = "[more stacks]"
local LEAVES = { G = ";[garbage collector]", J = ";[jit compiler]" }

local M = {}
local sampler
local running -- { id, until_ns, stacks, bytes }
local done_id = 0ULL

local function sample(thread, samples, state)
	local p = running
	if not p then return end
	local stack = sampler.dumpstack(thread, "FZ;", -DEPTH) .. (LEAVES[state] or "")
	local count = p.stacks[stack]
	if not count then
		p.bytes = p.bytes + #stack + LINE_SPARE
		if p.bytes > BYTES_MAX then stack, count = MORE, p.stacks[MORE] end
	end
	p.stacks[stack] = (count or 0) + samples
end

local function text_of(stacks)
	local found, vmdef = pcall(require, "jit.vmdef")
	local lines = {}
	for stack, count in pairs(stacks) do
		stack = stack:gsub("%c", "?"):gsub("%[builtin#(%d+)%]", function(n)
			return found and vmdef.ffnames[tonumber(n)] or nil
		end)
		lines[#lines + 1] = stack .. " " .. count .. "\n"
	end
	local text = table.concat(lines)
	if #text <= BYTES_MAX then return text end
	return text:sub(1, BYTES_MAX):match "^.*\n" -- names of builtins are longer than their numbers
end

local function finish(r)
	local p = running
	sampler.stop()
	running, done_id = nil, p.id
	local name = ("%s.%s.folded"):format(r.name, region.hex(p.id))
	local done, why = region.write_file(r.dir, name, text_of(p.stacks))
	if not done then ngx.log(ngx.ERR, "tidegate: no profile: ", why) end
end

local function begin(r, id, until_ns, now)
	local found
	found, sampler = pcall(require, "jit.profile")
	done_id = id
	if not found then
		ngx.log(ngx.ERR, "tidegate: no profile: this LuaJIT has no jit.profile")
		return
	end
	running = { id = id, until_ns = until_ns, stacks = {}, bytes = LINE_SPARE + #MORE }
	sampler.start(MODE, sample)
	-- The next turn of the worker's timer ends it where there is no room for this one.
	ngx.timer.at(tonumber(until_ns - now) / 1e9, function()
		if running and running.id == id then finish(r) end
	end)
end

-- g: the gateway's record in host.seg, or nil. is_last: the worker is about to end.
function M.look(r, g, is_last)
	local now = region.now_ns()
	if running and (is_last or now >= running.until_ns or (g and g.profile_id ~= running.id)) then
		finish(r)
	end
	if is_last or running or not g or r.fd < 0 then return end
	local id, until_ns = g.profile_id + 0ULL, g.profile_until_mono_ns + 0ULL
	if id ~= 0 and id ~= done_id and now < until_ns then begin(r, id, until_ns, now) end
end

-- Whether one is being taken.
function M.is_running() return running ~= nil end

return M
