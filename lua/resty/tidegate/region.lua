-- SPDX-License-Identifier: Apache-2.0
-- The memory of this process's segment and the file behind it (proto/segment.h, SEGMENT_PROCESS).
-- Private memory until the file is made: what init_by_lua declares and binds in the master is each
-- worker's own afterwards, because the file takes the place of the memory at the same addresses.
local ffi = require "ffi"
local histogram = require "resty.tidegate.histogram"

local C = ffi.C

-- Names of our own, so that no other module's declarations are in the way.
ffi.cdef [[
int tidegate_open(const char *, int, ...) __asm__("open");
int tidegate_close(int) __asm__("close");
int tidegate_flock(int, int) __asm__("flock");
int tidegate_fchmod(int, unsigned) __asm__("fchmod");
int tidegate_fallocate(int, long, long) __asm__("posix_fallocate");
long tidegate_pwrite(int, const void *, size_t, long) __asm__("pwrite");
long tidegate_read(int, void *, size_t) __asm__("read");
int tidegate_fstatfs(int, void *) __asm__("fstatfs");
int tidegate_rename(const char *, const char *) __asm__("rename");
int tidegate_unlink(const char *) __asm__("unlink");
int tidegate_access(const char *, int) __asm__("access");
void *tidegate_mmap(void *, size_t, int, int, int, long) __asm__("mmap");
int tidegate_munmap(void *, size_t) __asm__("munmap");
int tidegate_getpid(void) __asm__("getpid");
int tidegate_getppid(void) __asm__("getppid");
long tidegate_getrandom(void *, size_t, unsigned) __asm__("getrandom");
const char *tidegate_strerror(int) __asm__("strerror");
typedef struct { long s, ns; } tidegate_timespec;
int tidegate_clock(int, tidegate_timespec *) __asm__("clock_gettime");

typedef struct {
	uint64_t magic;
	uint32_t version, header_bytes, endian, kind;
	uint64_t total_bytes;
	uint8_t boot_id[16];
	uint32_t writer_pid, writer_parent;
	uint64_t writer_start, epoch, tick_seq, heartbeat_ns, tick_mono_ns, tick_real_ns;
	uint64_t tick_interval_ns, ticks, maps_id, refused;
	uint64_t gateways_offset;
	uint32_t gateways_capacity, gateways_count;
	uint64_t directory_offset;
	uint32_t directory_capacity, directory_count;
	uint64_t heap_offset, heap_capacity, heap_used;
	uint64_t cells_offset, cells_capacity, cells_used;
	uint32_t hist_cells, reserved1;
	uint64_t life, thresholds_offset;
	char gateway[64];
} tidegate_header;

typedef struct {
	uint32_t state;
	uint8_t kind, merge, scope, flags;
	uint32_t name_offset, name_bytes, unit_offset, unit_bytes, help_offset, help_bytes;
	uint32_t labels_offset, labels_bytes;
	uint64_t value_cell;
	uint32_t cell_count, reserved1;
	uint64_t reserved[1];
} tidegate_entry;
]]
assert(ffi.sizeof("tidegate_header") == 304 and ffi.sizeof("tidegate_entry") == 64)

local O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW, O_CLOEXEC = 2, 0x40, 0x80, 0x20000, 0x80000
if ffi.arch == "arm64" then O_NOFOLLOW = 0x8000 end
local LOCK_EX_NB, TMPFS = 6, 0x01021994
local PROT_RW, MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANON = 3, 1, 2, 0x10, 0x20
local FAILED = ffi.cast("void *", -1)
local HEADER_BYTES, PAGE = 4096, 4096

local M = { HIST_CELLS = 323 }
local region = {}
region.__index = region

local function up(n, to) return math.ceil(n / to) * to end
local function why() return ffi.string(C.tidegate_strerror(ffi.errno())) end
local now = ffi.new "tidegate_timespec"
-- CLOCK_MONOTONIC.
function M.now_ns()
	C.tidegate_clock(1, now)
	return ffi.cast("uint64_t", now.s) * 1000000000ULL + ffi.cast("uint64_t", now.ns)
end

local function anonymous(at, bytes)
	local flags = MAP_PRIVATE + MAP_ANON + (at and MAP_FIXED or 0)
	local p = C.tidegate_mmap(at, bytes, PROT_RW, flags, -1, 0)
	return p ~= FAILED and p or nil
end

-- dir: …/app. Raises: only for want of memory.
function M.new(dir, gateway, series, histograms)
	local directory = HEADER_BYTES + (M.HIST_CELLS - 1) * 8
	local heap = directory + series * 64
	local heap_capacity = up(series * 96 + 16384, 64)
	local cells = up(heap + heap_capacity, 64)
	local cells_capacity = series + histograms * up(M.HIST_CELLS, 8) + 8
	local bytes = up(cells + cells_capacity * 8, PAGE)
	local base = anonymous(nil, bytes)
	if not base then error("tidegate: no memory for " .. bytes .. " bytes: " .. why()) end
	local self = setmetatable({ dir = dir, bytes = bytes, fd = -1, histograms = histograms,
		made_in = C.tidegate_getpid() }, region)
	self.base = ffi.gc(ffi.cast("char *", base), function(p)
		C.tidegate_munmap(p, bytes)
		if self.fd >= 0 then C.tidegate_close(self.fd) end
	end)
	local h = ffi.cast("tidegate_header *", base)
	h.magic, h.version, h.header_bytes = 0x3147455345444954ULL, 2, HEADER_BYTES
	h.endian, h.kind, h.total_bytes = 0x01020304, 3, cells + cells_capacity * 8
	h.gateways_offset, h.thresholds_offset, h.directory_offset = HEADER_BYTES, HEADER_BYTES, directory
	h.directory_capacity, h.heap_offset, h.heap_capacity = series, heap, heap_capacity
	h.cells_offset, h.cells_capacity, h.hist_cells = cells, cells_capacity, M.HIST_CELLS
	ffi.copy(h.gateway, gateway:sub(1, 63))
	local t = ffi.cast("uint64_t *", self.base + HEADER_BYTES)
	for j = 0, M.HIST_CELLS - 2 do t[j] = histogram.thresholds[j] end
	self.h = h
	self.directory = ffi.cast("tidegate_entry *", self.base + directory)
	self.heap = self.base + heap
	self.cells = ffi.cast("uint64_t *", self.base + cells)
	return self
end

local function read_text(path)
	local f = io.open(path)
	local text = f and f:read(1024) or ""
	if f then f:close() end
	return text
end

local function identify(self)
	local h = self.h
	-- A file that is made again keeps the life of the one that is gone: same counters, not others.
	while h.life == 0 do
		local at = ffi.cast("char *", h) + ffi.offsetof("tidegate_header", "life")
		if C.tidegate_getrandom(at, 8, 0) ~= 8 then return nil, "no random number: " .. why() end
	end
	h.writer_pid, h.writer_parent = C.tidegate_getpid(), C.tidegate_getppid()
	h.heartbeat_ns = M.now_ns()
	local digits = read_text("/proc/sys/kernel/random/boot_id"):gsub("[^%x]", "")
	for i = 0, 15 do h.boot_id[i] = tonumber(digits:sub(2 * i + 1, 2 * i + 2), 16) or 0 end
	-- Field 22, counted behind the last parenthesis of the name.
	local fields, n = read_text("/proc/self/stat"):match(".*%)(.*)") or "", 2
	for word in fields:gmatch("%S+") do
		n = n + 1
		if n == 22 then h.writer_start = tonumber(word) or 0 end
	end
	return true
end

-- A full tmpfs is an error here, never a fault at some later store; a disk would stall the worker.
local function fill(self, fd)
	local fs = ffi.new "long[32]"
	if C.tidegate_fstatfs(fd, fs) ~= 0 or tonumber(fs[0]) ~= TMPFS then
		return nil, self.dir .. " is not on tmpfs"
	end
	local r = C.tidegate_fallocate(fd, 0, self.bytes)
	if r ~= 0 then
		return nil, ("no room for %d bytes in %s: %s; make its tmpfs larger or allow fewer series")
			:format(self.bytes, self.dir, ffi.string(C.tidegate_strerror(r)))
	end
	local at = 0
	while at < self.bytes do
		local n = tonumber(C.tidegate_pwrite(fd, self.base + at, self.bytes - at, at))
		if n <= 0 then return nil, "cannot write in " .. self.dir .. ": " .. why() end
		at = at + n
	end
	return true
end

local function make(self, temporary)
	local flags = O_RDWR + O_CREAT + O_EXCL + O_NOFOLLOW + O_CLOEXEC
	local fd = C.tidegate_open(temporary, flags, ffi.cast("int", 416)) -- 0640
	if fd < 0 then
		return nil, ("cannot make a file in %s: %s; is the agent installed, and this user in " ..
			"group tidegate-app?"):format(self.dir, why())
	end
	local done, err = true, nil
	if C.tidegate_flock(fd, LOCK_EX_NB) ~= 0 or C.tidegate_fchmod(fd, 416) ~= 0 then
		done, err = nil, "cannot lock a file in " .. self.dir .. ": " .. why()
	end
	if done then done, err = fill(self, fd) end
	if done then return fd end
	C.tidegate_unlink(temporary)
	C.tidegate_close(fd)
	return nil, err
end

-- In a worker: what the master counted is the master's.
local function zero(self)
	ffi.fill(self.cells, tonumber(self.h.cells_used) * 8)
	self.h.refused, self.h.life = 0, 0
end

-- 16 digits.
function M.hex(number)
	return ("%08x%08x"):format(tonumber(number / 4294967296ULL), tonumber(number % 4294967296ULL))
end

local function name_of(self)
	local life = self.h.life
	return ("%d-%s"):format(C.tidegate_getpid(), M.hex(life))
end

-- Makes the file if there is none. true, or nil and why; counting goes on in private memory then.
function region:attach()
	if C.tidegate_getpid() ~= self.made_in then
		zero(self)
		self.made_in = C.tidegate_getpid()
	end
	local done, err = identify(self)
	if not done then return nil, err end
	local name = name_of(self)
	local temporary, path = self.dir .. "/." .. name .. ".seg", self.dir .. "/" .. name .. ".seg"
	local fd
	fd, err = make(self, temporary)
	if not fd then return nil, err end
	-- Mapped before it has its name: once the agent sees it, it counts.
	if C.tidegate_mmap(self.base, self.bytes, PROT_RW, MAP_SHARED + MAP_FIXED, fd, 0) == FAILED or
		C.tidegate_rename(temporary, path) ~= 0 then
		err = "cannot map a file in " .. self.dir .. ": " .. why()
		C.tidegate_unlink(temporary)
		C.tidegate_close(fd)
		return nil, err
	end
	if self.fd >= 0 then C.tidegate_close(self.fd) end
	self.fd, self.path, self.name = fd, path, name
	return true
end

-- Says that the writer lives; makes the file (again) where it is not. true, or nil and why.
function region:heartbeat()
	self.h.heartbeat_ns = M.now_ns()
	if self.fd >= 0 and C.tidegate_access(self.path, 0) == 0 then return true end
	return self:attach()
end

-- A file beside the segments, seen whole or not at all. true, or nil and why.
function M.write_file(dir, name, text)
	local temporary, path = dir .. "/." .. name, dir .. "/" .. name
	local flags = O_RDWR + O_CREAT + O_EXCL + O_NOFOLLOW + O_CLOEXEC
	local fd = C.tidegate_open(temporary, flags, ffi.cast("int", 416)) -- 0640
	if fd < 0 then return nil, "cannot make a file in " .. dir .. ": " .. why() end
	local is_whole = C.tidegate_fchmod(fd, 416) == 0 and
		tonumber(C.tidegate_pwrite(fd, text, #text, 0)) == #text
	if is_whole and C.tidegate_rename(temporary, path) == 0 then
		C.tidegate_close(fd)
		return true
	end
	local err = "cannot write in " .. dir .. ": " .. why()
	C.tidegate_unlink(temporary)
	C.tidegate_close(fd)
	return nil, err
end

-- Offset of the text with its NUL; nil: no room.
function region:add_text(text)
	local h = self.h
	local at = math.max(tonumber(h.heap_used), 8)
	if at + #text + 1 > tonumber(h.heap_capacity) then return nil end
	ffi.copy(self.heap + at, text, #text + 1)
	h.heap_used = at + #text + 1
	return at
end

return M
