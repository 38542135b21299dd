-- SPDX-License-Identifier: Apache-2.0
-- Metrics of this gateway as text, asked of the agent on this host: it has summed all workers, and
-- rendering them costs the gateway a copy. Waits on a socket, so only where cosockets work.
local ffi = require "ffi"

local TIMEOUT_MS, BYTES_MAX, CHUNK = 5000, 64 * 1048576, 65536

local function read_all(sock)
	local parts, size = {}, 0
	repeat
		local data, why, rest = sock:receive(CHUNK)
		parts[#parts + 1] = data or rest
		size = size + #(data or rest or "")
		if why and why ~= "closed" then return nil, why end
		if size > BYTES_MAX then return nil, "more than " .. BYTES_MAX .. " bytes" end
	until why
	return table.concat(parts)
end

local function ask(address)
	local host, port = address:match "^%[?(.-)%]?:(%d+)$"
	if not host then return nil, "not an address: " .. address end
	local sock = ngx.socket.tcp()
	sock:settimeout(TIMEOUT_MS)
	local done, why = sock:connect(host, tonumber(port))
	if not done then return nil, why end
	done, why = sock:send("GET /metrics HTTP/1.0\r\nHost: " .. host .. "\r\n\r\n")
	local text
	if done then text, why = read_all(sock) end
	sock:close()
	local status, body = (text or ""):match "^HTTP/1%.%d (%d+).-\r\n\r\n(.*)$"
	if status == "200" then return body end
	return nil, why or "status " .. tostring(status)
end

-- Name of the metric that a line is about.
local function family(line, names)
	local name = line:match "^# %u+ ([%w_]+)" or line:match "^[%w_]+"
	if not name or names[name] then return name end
	return (name:gsub("_bucket$", ""):gsub("_sum$", ""):gsub("_count$", ""))
end

local M = {}

-- Lines, each with its end, of the metrics in names, of the gateway that the record is about (nil:
-- of every one on this host); nil and why where the agent does not answer.
function M.lines(address, names, record)
	-- Read before we wait: the record is the agent's memory, which goes when that begins anew.
	local ours = record and 'instance="' .. ffi.string(record.instance) .. '"'
	local body, why = ask(address)
	if not body then return nil, "the agent does not answer at " .. address .. ": " .. why end
	local lines = {}
	for line in body:gmatch "[^\n]+" do
		local is_told = names[family(line, names)]
		if is_told and (not ours or line:byte() == 35 or line:find(ours, 1, true)) then
			lines[#lines + 1] = line .. "\n"
		end
	end
	return lines
end

return M
