-- SPDX-License-Identifier: Apache-2.0
-- Hooks and drivers run in the agent's Lua 5.4 and see its `tidegate` table; what runs inside a
-- gateway sees nginx's.
std = "lua54"
max_line_length = 100
unused_args = false
files["lua/**"] = { read_globals = { "tidegate" } }
files["lua/resty/**"] = { std = "ngx_lua", read_globals = { "tidegate" } }
files["tests/**"] = { read_globals = { "tidegate", "ngx" } }
