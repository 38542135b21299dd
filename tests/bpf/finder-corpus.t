#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The function finder on a corpus of collectors (corpus.sh): what it says of a file with symbols, of the
# same file stripped, with its debug file and with .gnu_debugdata, against what the symbol table says.
# The distribution's stripped libraries have no symbols to compare with; their archives of the same
# build have: the same function has its exits at the same distances.
set -u
here=$(dirname "$0")
# shellcheck source=tests/bpf/corpus.sh
source "$here/corpus.sh"
examine=${BUILD:-build}/tests/bpf/examine
n=0 failures=0

skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

ok() { # result name details…
	n=$((n + 1))
	[ "$1" = 0 ] && echo "ok $n - $2" && return
	failures=$((failures + 1))
	echo "not ok $n - $2"
	shift 2
	printf '%s\n' "$@" | sed 's/^/# /'
}

# File offset of a function, by the file's own symbol and program header tables.
truth() { # file symbol
	{
		readelf -lW "$1"
		readelf -sW "$1"
	} | perl -ne '
		push @load, [map { hex } $1, $2, $3]
			if /^\s+LOAD\s+(0x\w+) (0x\w+) 0x\w+ (0x\w+)/;
		$at //= hex $1 if /^\s*\d+: (\w+)\s+\d+ FUNC .* \Q'"$2"'\E(?:@\S+)?$/;
		END {
			for (@load) {
				my ($offset, $address, $size) = @$_;
				printf "%#x", $at - $address + $offset
					if defined $at && $at >= $address && $at < $address + $size;
			}
		}'
}

field() { # name line
	local rest=${2##* "$1"=}
	echo "${rest%% *}"
}

# The functions that a file of that name must have, as field:symbol.
functions() {
	case $1 in
	go*) echo 'stop:runtime.stopTheWorldWithSema start:runtime.startTheWorldWithSema' \
		'cycle:runtime.gcMarkTermination' ;;
	luajit*) echo 'step:lj_gc_step full:lua_gc' ;;
	lua5.2*) echo 'step:luaC_forcestep full:lua_gc' ;;
	*) echo 'step:luaC_step full:lua_gc' ;;
	esac
}

runtime() {
	case $1 in
	go*) echo go ;;
	luajit*) echo luajit ;;
	*) echo "${1%%-*}" ;;
	esac
}

check() { # name file how test-name options…
	local name=$1 file=$2 how=$3 title=$4 line pair want bad=0 wrong=''
	shift 4
	line=$("$examine" "$@" "$file")
	[ "$(field found "$line")" = 1 ] || bad=1
	[ "$(field name "$line")" = "$(runtime "$name")" ] || bad=1
	[ "$(field how "$line")" = "$how" ] || bad=1
	awk -v c="$(field confidence "$line")" 'BEGIN { exit !(c >= 0.7 && c <= 1) }' || bad=1
	for pair in $(functions "$name"); do
		want=$(truth "$corpus_bin/$name" "${pair#*:}")
		[ -n "$want" ] && [ "$(field "${pair%%:*}" "$line")" = "$want" ] && continue
		bad=1 wrong="$wrong ${pair#*:} lies at ${want:-no place}"
	done
	ok $bad "$title: $(field how "$line"), confidence $(field confidence "$line")" "$line" "$wrong"
}

distances() { # line: of the step's exits from its first byte
	local start exit list=''
	start=$(field step "$1")
	for exit in $(field exits "${1%% full=*}" | tr ',' ' '); do
		list="$list $((${exit%%/*} - start))"
	done
	echo "$list"
}

check_shipped() { # library name: the stripped library against the archive of its package
	local line same
	line=$("$examine" "$1")
	same=$("$examine" "$corpus_bin/$2")
	[ "$(field how "$line")" = call-vote ] && [ -n "$(distances "$line")" ] &&
		[ "$(distances "$line")" = "$(distances "$same")" ]
	ok $? "$2 as shipped: confidence $(field confidence "$line")" "$line" "$same"
}

# Lua 5.3 with -Os ends a step by jumping to what runs finalizers: the step ends where that does.
check_tail_call() {
	local file=$corpus_bin/lua5.3-Os line low exit bad=1
	line=$("$examine" "$file.stripped")
	low=$(truth "$file" runafewfinalizers)
	for exit in $(field exits "${line%% full=*}" | tr ',' ' '); do
		[ $((${exit%%/*})) -ge $((low)) ] && [ $((${exit%%/*})) -lt $((low + 128)) ] && bad=0
	done
	ok $bad "lua5.3-Os: a tail call is followed" "$line" "runafewfinalizers lies at $low"
}

# A root with the debug file of a stripped copy, seen through a process that lives in it.
check_debug_file() { # name
	local file=$corpus_bin/$1 root=$corpus/root id pid strip=objcopy
	case $1 in *-arm64*) strip='corpus_tool objcopy' ;; esac
	id=$(readelf -n "$file" | sed -n 's/.*Build ID: //p')
	mkdir -p "$root/usr/lib/debug/.build-id/${id:0:2}"
	$strip --only-keep-debug "$file" "$root/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug"
	# shellcheck disable=SC2016 # perl's
	perl -e 'chroot shift or die $!; print "in\n"; close STDOUT; sleep 60' "$root" \
		>"$corpus/chroot" &
	pid=$!
	while kill -0 $pid 2>/dev/null && ! grep -q in "$corpus/chroot"; do
		read -rt 0.02 <> <(:)
	done
	check "$1" "$file.stripped" debug-file "$1 with its debug file" --pid $pid
	kill $pid
	wait $pid 2>/dev/null
	rm -rf "$root"
}

# As Fedora ships it: a small ELF file with .symtab alone, packed, inside the stripped one.
check_debugdata() { # name
	local file=$corpus_bin/$1 small=$corpus/small objcopy=objcopy
	case $1 in *-arm64*) objcopy='corpus_tool objcopy' ;; esac
	$objcopy --only-keep-debug "$file" "$small" && rm -f "$small.xz" && xz "$small" &&
		$objcopy --add-section .gnu_debugdata="$small.xz" "$file.stripped" "$small.file"
	check "$1" "$small.file" gnu_debugdata "$1 with .gnu_debugdata"
	rm -f "$small"*
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
	skip_all "apt-get is missing: the corpus comes from Debian's archive"
[ "$(uname -m)" = x86_64 ] || skip_all "the corpus is made on x86-64 only"
[ -x "$examine" ] || skip_all "$examine is missing"
for needed in readelf perl xz clang-14; do
	command -v $needed >/dev/null || skip_all "$needed is missing"
done
mkdir -p "$corpus"
corpus_fetch || skip_all "$(cat "$corpus/why")"
corpus_build
while read -r line; do
	ok 1 "corpus: could not make $line"
done < <(cat "$corpus/failed" 2>/dev/null)

for file in "$corpus_bin"/*.stripped; do
	name=${file##*/} name=${name%.stripped}
	how=symtab stripped=call-vote
	case $name in go*) how=gopclntab stripped=gopclntab ;; esac
	check "$name" "$corpus_bin/$name" $how "$name with symbols"
	check "$name" "$file" $stripped "$name stripped"
done
for m in amd64:x86_64 arm64:aarch64; do
	for library in lua5.1 lua5.2 lua5.3 lua5.4 luajit-5.1; do
		for file in "$corpus/${m%%:*}/usr/lib/${m##*:}"-linux-gnu/lib$library.so.?.?.?; do
			check_shipped "$file" "$library-${m%%:*}"
		done
	done
done
check_tail_call
if [ "$(id -u)" = 0 ]; then
	check_debug_file lua5.4-amd64
	check_debug_file luajit-5.1-arm64
else
	n=$((n + 1))
	echo "ok $n - debug file # SKIP root is missing"
fi
check_debugdata lua5.3-amd64
check_debugdata lua5.2-arm64
echo "1..$n"
[ $failures = 0 ]
