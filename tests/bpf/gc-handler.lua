-- SPDX-License-Identifier: Apache-2.0
-- gc-cycles.lua as a handler of nginx: ?cycles=N&what=step|collect&argument=N.
local ffi = require "ffi"
jit.off()
ffi.cdef [[
struct gc_truth_time { long seconds, nanoseconds; };
int clock_gettime(int clock, struct gc_truth_time *time);
]]
local C, now = ffi.C, ffi.new "struct gc_truth_time"
local CLOCK_MONOTONIC = 1

local function clock()
	C.clock_gettime(CLOCK_MONOTONIC, now)
	return tonumber(now.seconds) * 1e9 + tonumber(now.nanoseconds)
end

local here = debug.getinfo(1, "S").source:match "^@(.*/)"
local run = assert(loadfile(here .. "gc-cycles.lua"))(clock)

return function()
	local args = ngx.req.get_uri_args()
	ngx.say(run(tonumber(args.cycles), args.what, tonumber(args.argument) or 0))
end
