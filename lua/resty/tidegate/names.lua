-- SPDX-License-Identifier: Apache-2.0
-- What may be a metric's name, a label's and a label's value.
local M = {}

local LABELS_MAX, NAME_MAX, VALUE_MAX = 8, 128, 255

-- Raises at the caller of the function that declares. kind: "counter" "gauge" "histogram".
function M.check(name, kind)
	if type(name) ~= "string" or #name > NAME_MAX or not name:find "^[%a_][%w_]*$" then
		error(("tidegate: metric %q: not a name ([a-zA-Z_][a-zA-Z0-9_]*, at most %d bytes)")
			:format(tostring(name), NAME_MAX), 4)
	elseif kind == "counter" and not name:find "._total$" then
		error(("tidegate: counter %s: its name must end in _total"):format(name), 4)
	elseif kind == "histogram" and not name:find "._seconds$" then
		error(("tidegate: histogram %s: its name must end in _seconds, which it counts"):format(name), 4)
	end
end

function M.check_labels(name, labels)
	local seen = {}
	if #labels > LABELS_MAX then
		error(("tidegate: metric %s: %d labels, at most %d are possible")
			:format(name, #labels, LABELS_MAX), 4)
	end
	for _, label in ipairs(labels) do
		if type(label) ~= "string" or #label > NAME_MAX or not label:find "^[%a_][%w_]*$" or
			label:sub(1, 2) == "__" or seen[label] then
			error(("tidegate: metric %s: %q is no name of a label, or there twice")
				:format(name, tostring(label)), 4)
		end
		seen[label] = true
	end
end

-- Bytes that are no text become '?'; what is too long is cut between characters.
function M.clean(value)
	value = tostring(value):gsub("%z.*", "")
	if #value > VALUE_MAX or value:find "[\128-\255]" then
		local out, at, size = {}, 1, 0
		while at <= #value do
			local c = value:match("^[%z\1-\127]", at) or value:match("^[\194-\223][\128-\191]", at) or
				value:match("^[\224-\239][\128-\191][\128-\191]", at) or
				value:match("^[\240-\244][\128-\191][\128-\191][\128-\191]", at)
			local text = c or "?"
			if size + #text > VALUE_MAX then break end
			out[#out + 1] = text
			size, at = size + #text, at + (c and #c or 1)
		end
		value = table.concat(out)
	end
	return value
end

return M
