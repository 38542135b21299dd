#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# require "tidegate" of PUC Lua, in each version that it is built for: puc/module.lua.
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-$PWD/build}
count=0 failed=0
for version in 5.3 5.4; do
	module=$BUILD/puc/$version/tidegate.so
	[ -e "$module" ] && command -v lua$version >/dev/null || continue
	dir=$(mktemp -d /dev/shm/tidegate-puc.XXXXXX)
	mkdir "$dir/app"
	ended=no
	while IFS= read -r line; do
		case $line in
		'ok '* | 'not ok '*)
			count=$((count + 1))
			[ "${line%% *}" = ok ] || failed=$((failed + 1))
			echo "${line%% -*} $count - Lua $version: ${line#* - }"
			;;
		'# end') ended=yes ;;
		*) echo "$line" ;;
		esac
	done < <(TIDEGATE_RUNTIME_DIR=$dir CPATH="$BUILD/puc/$version/?.so" lua$version tests/lua/puc/module.lua 2>&1)
	count=$((count + 1))
	[ $ended = yes ] || { failed=$((failed + 1)); printf 'not '; }
	echo "ok $count - Lua $version: ran to its end, finalizers included"
	rm -rf "$dir"
done
[ $count -gt 0 ] || { echo '1..0 # SKIP no Lua 5.3 or 5.4 with its headers is here'; exit 0; }
echo "1..$count"
[ $failed = 0 ]
