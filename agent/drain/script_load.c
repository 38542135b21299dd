/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: the library, then the hook files by name; a file of hooks_dir replaces the shipped one
 * of its name (an empty one removes it). Each file has globals of its own above the shared ones.
 */
#include "drain/script_host.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define FILES_MAX 128

struct hook_file {
	char name[128], path[PATH_MAX];
};

struct chunk {
	struct script_host *h;
	const char *path, *text;
	size_t size;
	bool is_shared; /* runs in the shared globals: the library */
	int results;
};

int host_read_file(const char *path, char **ret_text, size_t *ret_size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	_cleanup_free_ char *text = NULL;
	struct stat st;
	size_t len = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	text = malloc(SCRIPT_FILE_MAX + 1);
	if (!text)
		return -ENOMEM;
	while (len <= SCRIPT_FILE_MAX) {
		ssize_t n = read(fd, text + len, SCRIPT_FILE_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		len += (size_t)n;
	}
	if (len > SCRIPT_FILE_MAX)
		return -EFBIG;
	*ret_text = TAKE_PTR(text);
	*ret_size = len;
	return 0;
}

__attribute__((format(printf, 2, 3))) static void tell(struct script_host *h, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	h->problems++;
	h->options.problem(h->options.data, text);
}

/* Stack: chunk (light userdata). Runs protected, under a CPU budget. */
static int run_chunk(lua_State *L)
{
	struct chunk *c = lua_touserdata(L, 1);

	lua_pushfstring(L, "@%s", c->path); /* chunk name */
	if (luaL_loadbufferx(L, c->text, c->size, lua_tostring(L, -1), "t") != LUA_OK)
		return lua_error(L);
	if (!c->is_shared) {
		lua_newtable(L);                /* … fn env */
		lua_newtable(L);                /* … fn env meta */
		lua_pushglobaltable(L);         /* … fn env meta _G */
		lua_setfield(L, -2, "__index"); /* … fn env meta */
		lua_setmetatable(L, -2);        /* … fn env */
		lua_setupvalue(L, -2, 1);       /* … fn */
	}
	lua_call(L, 0, 0);
	return 0;
}

static int load_file(struct script_host *h, const char *path, const char *name, bool is_shared)
{
	struct chunk c = {.h = h, .path = path, .is_shared = is_shared};
	unsigned int hooks_before = h->hook_count;
	char why[400], *text = NULL;
	int r = host_read_file(path, &text, &c.size);

	if (r < 0) {
		tell(h, "%s: %s", path, r == -EFBIG ? "larger than 256 KiB" : err_text(r));
		return r;
	}
	c.text = text;
	h->loading = name;
	host_arm(h, h->L, h->options.cpu_ns);
	r = host_protect(h, run_chunk, &c, why, sizeof(why));
	h->cpu_limit_ns = UINT64_MAX;
	h->is_killed = false;
	h->loading = NULL;
	free(text);
	if (r < 0) {
		/* Half a file is worse than none. */
		h->hook_count = hooks_before;
		tell(h, "%s%s%s", str_starts(why, path) ? "" : path,
		     str_starts(why, path) ? "" : ": ", why);
	}
	return r;
}

/* -------- require: modules of lua_dir only, each run once -------- */

static int require_module(lua_State *L)
{
	struct script_host *h = host_of(L);
	const char *name = luaL_checkstring(L, 1);
	char path[PATH_MAX], *text = NULL, *dot;
	size_t size = 0;
	int r;

	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '_' && (*p != '.' || p[1] == '.'))
			return luaL_error(L, "require: no module `%s`", name);
	if (lua_getfield(L, lua_upvalueindex(1), name) != LUA_TNIL)
		return 1;
	r = snprintf(path, sizeof(path), "%s/%s", h->options.lua_dir ? h->options.lua_dir : "",
		     name);
	if (!h->options.lua_dir || r < 0 || (size_t)r >= sizeof(path) - 5)
		return luaL_error(L, "require: no module `%s`", name);
	for (dot = path + strlen(h->options.lua_dir); *dot; dot++)
		if (*dot == '.')
			*dot = '/';
	strcpy(dot, ".lua");
	r = host_read_file(path, &text, &size);
	if (r < 0)
		return luaL_error(L, "require: no module `%s` (%s: %s)", name, path, err_text(r));
	/* Lua copies the text before anything of it runs; nothing raises between here and free
	 * but the loading itself, which returns its error. */
	lua_settop(L, 1);
	r = lua_checkstack(L, 8) ? luaL_loadbufferx(L, text, size, name, "t") : LUA_ERRMEM;
	free(text);
	if (r != LUA_OK)
		return luaL_error(L, "require: %s",
				  lua_gettop(L) > 1 ? lua_tostring(L, -1) : "out of memory");
	lua_call(L, 0, 1);
	if (lua_isnil(L, -1)) {
		lua_pop(L, 1);
		lua_pushboolean(L, 1);
	}
	lua_pushvalue(L, -1);
	lua_setfield(L, lua_upvalueindex(1), name);
	return 1;
}

static int open_require(lua_State *L)
{
	lua_newtable(L);
	lua_pushcclosure(L, require_module, 1);
	lua_setglobal(L, "require");
	return 0;
}

/* -------- files -------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct hook_file *)a)->name, ((const struct hook_file *)b)->name);
}

/* Adds the *.lua files of dir; those with a name that is there already take its place. */
static void list_files(struct script_host *h, const char *dir, bool is_needed,
		       struct hook_file *files, size_t *n)
{
	_cleanup_dir_ DIR *d = opendir(dir);
	struct dirent *entry;

	if (!d) {
		if (is_needed || errno != ENOENT)
			tell(h, "%s: %s", dir, err_text(-errno));
		return;
	}
	while ((entry = readdir(d))) {
		size_t i = 0;

		if (entry->d_name[0] == '.' || !str_ends(entry->d_name, ".lua") ||
		    strlen(entry->d_name) >= sizeof(files->name))
			continue;
		while (i < *n && !str_equal(files[i].name, entry->d_name))
			i++;
		if (i == FILES_MAX) {
			tell(h, "%s: more than %d files, the rest is skipped", dir, FILES_MAX);
			return;
		}
		str_copy(files[i].name, sizeof(files[i].name), entry->d_name);
		snprintf(files[i].path, sizeof(files[i].path), "%s/%s", dir, entry->d_name);
		if (i == *n)
			(*n)++;
	}
}

static void check_orders(struct script_host *h)
{
	for (unsigned int p = 0; script_points[p]; p++) {
		unsigned int order[SCRIPT_HOOKS_MAX];
		struct err e = {.text = ""};

		host_order_point(h, p, NULL, order, &e);
		if (e.text[0])
			tell(h, "%s: %s; none of them runs", script_points[p], e.text);
	}
}

static void load_library(struct script_host *h)
{
	char path[PATH_MAX], why[256];

	if (host_protect(h, open_require, NULL, why, sizeof(why)) < 0)
		tell(h, "require: %s", why);
	if (!h->options.lua_dir)
		return;
	snprintf(path, sizeof(path), "%s/tidegate.lua", h->options.lua_dir);
	load_file(h, path, "tidegate.lua", true);
}

static unsigned int load_all(struct script_host *h, const char *first, const char *second,
			     bool is_needed)
{
	struct hook_file *files = calloc(FILES_MAX, sizeof(*files));
	size_t n = 0;

	h->problems = 0;
	if (!files) {
		tell(h, "hooks: out of memory");
		return h->problems;
	}
	load_library(h);
	if (first)
		list_files(h, first, false, files, &n);
	if (second)
		list_files(h, second, is_needed, files, &n);
	qsort(files, n, sizeof(*files), by_name);
	for (size_t i = 0; i < n; i++)
		load_file(h, files[i].path, files[i].name, false);
	free(files);
	check_orders(h);
	return h->problems;
}

unsigned int script_load(struct script_host *h)
{
	char shipped[PATH_MAX];

	snprintf(shipped, sizeof(shipped), "%s/hooks",
		 h->options.lua_dir ? h->options.lua_dir : "");
	return load_all(h, h->options.lua_dir ? shipped : NULL, h->options.hooks_dir, false);
}

unsigned int script_load_dir(struct script_host *h, const char *dir)
{
	return load_all(h, NULL, dir, true);
}
