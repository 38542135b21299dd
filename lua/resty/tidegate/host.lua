-- SPDX-License-Identifier: Apache-2.0
-- host.seg, as far as a gateway needs it: is this gateway being drained, is a profile wanted? The
-- file is the agent's, in a directory that only the agent may write to; it never shrinks, a new one
-- takes its path.
local ffi = require "ffi"
local region = require "resty.tidegate.region"

local C = ffi.C

ffi.cdef [[
long tidegate_lseek(int, long, int) __asm__("lseek");
typedef struct {
	char name[64], instance[64], runtime[16], driver[16];
	uint32_t state, master_pid;
	uint64_t master_start;
	uint32_t draining, workers, requests_known, worker_uid;
	uint64_t numbers[10];
	uint64_t profile_until_mono_ns, profile_id;
	uint64_t reserved[14];
} tidegate_gateway;
]]
assert(ffi.sizeof "tidegate_gateway" == 400)

local LOOK_NS, STALE_NS = 1000000000ULL, 10000000000ULL
local LIVE, GATEWAYS, HEADER_BYTES, SEEK_END = 1, 64, 4096, 2

local M = {}
local looked_ns, pid = 0ULL, 0
local base, bytes, life, ours -- of the mapping

local function unmap()
	if base then C.tidegate_munmap(base, bytes) end
	base, ours = nil, nil
end

local function map(path)
	local fd = C.tidegate_open(path, ffi.arch == "arm64" and 0x88000 or 0xa0000) -- NOFOLLOW, CLOEXEC
	if fd < 0 then return unmap() end
	local size = tonumber(C.tidegate_lseek(fd, 0, SEEK_END))
	local p = size >= HEADER_BYTES and C.tidegate_mmap(nil, size, 1, 1, fd, 0) or nil
	C.tidegate_close(fd)
	if not p or p == ffi.cast("void *", -1) then return unmap() end
	local h = ffi.cast("tidegate_header *", p)
	if h.magic ~= 0x3147455345444954ULL or h.version ~= 2 or h.kind ~= 1 or
		h.gateways_capacity > GATEWAYS or
		tonumber(h.gateways_offset) + h.gateways_capacity * ffi.sizeof "tidegate_gateway" > size then
		C.tidegate_munmap(p, size)
		return unmap()
	end
	if base and life == h.life then -- the same one
		C.tidegate_munmap(p, size)
		return
	end
	unmap()
	base, bytes, life = p, size, h.life
end

-- By master; else the only live one of our name.
local function find(name)
	local h = ffi.cast("tidegate_header *", base)
	local records = ffi.cast("tidegate_gateway *", ffi.cast("char *", base) + h.gateways_offset)
	local parent, other, others = C.tidegate_getppid(), nil, 0
	for i = 0, math.min(h.gateways_count, h.gateways_capacity) - 1 do
		local g = records[i]
		if g.state == LIVE then
			if g.master_pid == pid or g.master_pid == parent then return g end
			if name and ffi.string(g.name, 63):match "^%Z*" == name then other, others = g, others + 1 end
		end
	end
	return others == 1 and other or nil
end

-- Record of this gateway in the agent's segment, or nil. Looks for another file once a second.
function M.record(r, name)
	local now = region.now_ns()
	if now - looked_ns >= LOOK_NS then
		looked_ns, pid = now, C.tidegate_getpid()
		map((r.dir:gsub("/app$", "/host.seg")))
		ours = base and find(name)
	end
	if not ours then return nil end
	local heartbeat = ffi.cast("tidegate_header *", base).heartbeat_ns
	if now > heartbeat and now - heartbeat > STALE_NS then return nil end -- nobody is there
	return ours, now
end

function M.is_draining(r, name)
	local g = M.record(r, name)
	return g ~= nil and g.draining ~= 0
end

return M
