#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a counter, a gauge and a histogram cost a script of PUC Lua 5.3 and 5.4 through the C module,
# writing into a segment on tmpfs. Budget: 60 ns a counter.
source "$(dirname "$0")/lib.sh"

dir=$(mktemp -d /dev/shm/tidegate-puc.XXXXXX)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/app"
for version in 5.3 5.4; do
	if ! [ -e "$BUILD/puc/$version/tidegate.so" ] || ! command -v "lua$version" >/dev/null; then
		echo "# no Lua $version with its headers is here"
		continue
	fi
	took=$(TIDEGATE_RUNTIME_DIR=$dir CPATH="$BUILD/puc/$version/?.so" \
		"lua$version" "$top/tests/bench/puc-cost.lua")
	read -r counter gauge histogram <<<"$took"
	row "lua${version}_counter" "$counter" ns "" "" 60
	row "lua${version}_gauge" "$gauge" ns "" "" ""
	row "lua${version}_histogram" "$histogram" ns "" "" ""
	[ -n "$(find "$dir/app" -name '*.seg')" ] || { echo "# but no file was written to"; exit 1; }
done
