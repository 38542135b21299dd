-- SPDX-License-Identifier: Apache-2.0
-- Handler that makes ?slices=N times the same garbage, giving way to others after each,
-- and lets the collector run as it would in any gateway.
local slices = tonumber(ngx.var.arg_slices) or 1
if not collectgarbage "isrunning" then
	collectgarbage "restart"
end
local kept = {}

for slice = 1, slices do
	for i = 1, 300 do
		kept[i % 40 + 1] = { name = "garbage " .. i .. slice, list = { i, slice } }
	end
	ngx.sleep(0)
end
ngx.say(#kept)
