-- SPDX-License-Identifier: Apache-2.0
-- Hooks and drivers run in the agent's Lua 5.4 and see its `tidegate` table, to which the library
-- adds; what runs inside a gateway sees nginx's and LuaJIT's.
std = "lua54"
max_line_length = 100
unused_args = false
files["lua"] = { globals = { "tidegate" } }
files["lua/hooks"] = { read_globals = { "tidegate" } }
files["lua/resty"] = { std = "ngx_lua+luajit", read_globals = { "tidegate" } }
files["packaging/examples"] = { std = "ngx_lua+luajit" }
files["tests"] = { globals = { "tidegate" }, read_globals = { "core", "ngx", "jit" } }
