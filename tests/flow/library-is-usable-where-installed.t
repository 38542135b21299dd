#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `make install-library` as a packager calls it: the documented example is compiled from pkg-config's
# answers and counts, C++ takes the header, Lua finds its modules, manual pages have no wrong macro and
# name every function, and the library shows what it promises and nothing else.
source "$(dirname "$0")/lib.sh"

for tool in pkg-config g++ groff nm; do
	command -v $tool >/dev/null || skip_all "$tool is not installed"
done
world_begin library
cd "$top" || exit 1
root=$world/root
# Not a part of the make that runs the tests.
env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make B="$BUILD" DESTDIR="$root" install-library >"$world/install" 2>&1
ok $? "it installs"
lib=$root/usr/lib

# ---- C ----
flags=$(PKG_CONFIG_PATH=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 \
	PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 pkg-config --cflags --libs tidegate)
ok $? "pkg-config knows it"
# shellcheck disable=SC2086 # words
cc -std=c11 -Wall -Wextra -Wpedantic -Werror -o "$world/orders" packaging/examples/c/orders.c $flags -pthread \
	>"$world/cc" 2>&1
ok $? "the example compiles as C11 without a warning" || cat "$world/cc"
mkdir -p "$run/app"
orders() { TIDEGATE_RUNTIME_DIR=$run LD_LIBRARY_PATH=$lib "$world/orders" 2>"$world/orders.err"; }
is "$(orders | sort | xargs)" "/cart: in service /pay: in service" "and runs"
is "$(cat "$world/orders.err")" "" "without a complaint"
is "$(find "$run/app" -name '*.seg' | wc -l)" 2 "each of its threads left a file"
rm -r "$run/app"
orders >"$world/orders.out"; ok $? "it runs where no agent is, too"
is "$(grep -c 'is the agent installed' "$world/orders.err")" 2 "and each thread says why there is no file"

# ---- C++ ----
cat >"$world/orders.cc" <<'CC'
#include <tidegate.h>
int main()
{
	tidegate_options options = {};
	tidegate *t = nullptr;
	tidegate_metric *m = nullptr;
	uint64_t *cell = nullptr;

	options.size = sizeof(options);
	if (tidegate_open(&options, &t) < 0 || tidegate_counter(t, "a_total", "", nullptr, 0, &m) < 0)
		return 1;
	tidegate_with(m, nullptr, &cell);
	tidegate_add(cell, 3);
	bool counted = *cell == 3;
	tidegate_set(cell, 1.5);
	return tidegate_close(t) == nullptr && counted ? 0 : 1;
}
CC
# shellcheck disable=SC2086 # words
g++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -o "$world/orders-cc" "$world/orders.cc" $flags >"$world/cc" 2>&1 &&
	TIDEGATE_RUNTIME_DIR=$run LD_LIBRARY_PATH=$lib "$world/orders-cc"
ok $? "C++11 takes the header, and counts"

# ---- what it shows ----
declared() { sed -n 's/^TIDEGATE_API .*[ *]\(tidegate_[a-z]*\)(.*/\1/p' lua/library/tidegate.h | sort; }
is "$(nm -D --defined-only "$lib/libtidegate.so.1" | awk '$2 == "T" {print $3}' | sort | xargs)" \
	"$(declared | sed 's/$/@@TIDEGATE_1/' | xargs)" "the library shows the header's functions and nothing else"
is "$(readelf -d "$lib/libtidegate.so" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')" libtidegate.so.1 "its name has a version"
is "$(readelf -d "$lib/libtidegate.so.1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vE '^(lib(c|m|asan|ubsan|tsan)|ld-linux.*)\.so')" "" \
	"it wants nothing but the C library"

# ---- Lua ----
for version in 5.3 5.4; do
	command -v "lua$version" >/dev/null && [ -e "$BUILD/puc/$version/tidegate.so" ] || continue
	is "$(LUA_CPATH="$lib/lua/$version/?.so" TIDEGATE_RUNTIME_DIR=$run "lua$version" \
		-e 'local c = require "tidegate".counter("a_total"):with() c:add(3) print(c:get())' 2>&1)" 3 \
		"Lua $version finds its module, and counts"
done
is "$(cd "$root/usr/share/lua/5.1" && find . -name '*.lua' | sort)" "$(cd lua && find ./resty -name '*.lua' | sort)" \
	"all of resty.tidegate is where LuaJIT looks"

# ---- manual pages ----
man=$root/usr/share/man
for page in man3/libtidegate.3 man5/tidegate-segment.5; do
	is "$(groff -man -t -Tutf8 -ww -z "$man/$page" 2>&1)" "" "$page has no wrong macro"
	is "$(grep -c '@[A-Za-z_]*@' "$man/$page")" 0 "and no place that was not filled"
done
text=$(groff -man -t -Tascii -P-cbou "$man/man3/libtidegate.3" 2>&1)
for name in $(declared); do grep -q "$name" <<<"$text" || echo "$name"; done >"$world/missing"
is "$(cat "$world/missing")" "" "libtidegate(3) names every function"
for name in $(awk -v as=assert -f packaging/man/segment-fields.awk proto/segment.h |
	sed -n 's/.*offsetof(struct [a-z_]*, \([a-z_0-9]*\)).*/\1/p'); do
	grep -q "	$name	" "$man/man5/tidegate-segment.5" || echo "$name"
done >"$world/missing"
is "$(cat "$world/missing")" "" "tidegate-segment(5) names every field"
tap_end
