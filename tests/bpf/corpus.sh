# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Makes $BUILD/corpus/bin: collectors of several runtimes, compilers and machines, each with its symbols
# (NAME) and without (NAME.stripped). From the distribution's own archive, for amd64 and arm64, by apt
# with a state of its own: nothing is installed, the machine's package lists stay as they are. What is
# there is not made again. For finder-corpus.t.

corpus=${BUILD:-build}/corpus
corpus_bin=$corpus/bin
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Packages whose libraries are unpacked, for both machines, and those for this one.
corpus_both='libluajit-5.1-2 libluajit-5.1-dev liblua5.1-0 liblua5.1-0-dev liblua5.2-0 liblua5.2-dev
	liblua5.3-0 liblua5.3-dev liblua5.4-0 liblua5.4-dev'
corpus_here='binutils-aarch64-linux-gnu golang-1.19-go golang-1.19-src'
# A Go whose function table has the format of 1.20, from the suite's backports.
corpus_later='golang-1.22-go golang-1.22-src'
corpus_sources='luajit2 lua5.1 lua5.2 lua5.3 lua5.4'

# The suites of Debian that this machine uses, with sources and both machines.
corpus_apt() {
	local signed='' uri suite component
	[ ! -f $keyring ] || signed=" signed-by=$keyring"
	mkdir -p "$corpus"/apt/{lists,cache}/partial "$corpus"/apt/cache/archives/partial
	apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' \
		'Origin: Debian' 2>/dev/null | grep ' main$' | grep -v -- '-\(updates\|security\) ' |
		while read -r uri suite component; do
			echo "deb [arch=amd64,arm64$signed] $uri $suite $component"
			echo "deb-src [${signed# }] $uri $suite $component"
			echo "deb [arch=amd64$signed] $uri $suite-backports $component"
		done | sed 's/ \[\]//' | sort -u >"$corpus/apt/sources"
	[ -s "$corpus/apt/sources" ] || return 1
	cat >"$corpus/apt/conf" <<-CONF
		Dir::State "$corpus/apt";
		Dir::State::status "/dev/null";
		Dir::Cache "$corpus/apt/cache";
		Dir::Etc::SourceList "$corpus/apt/sources";
		Dir::Etc::SourceParts "-";
		APT::Architectures { "amd64"; "arm64"; };
		APT::Sandbox::User "";
		Acquire::Languages "none";
		Acquire::Retries "2";
	CONF
	APT_CONFIG=$corpus/apt/conf apt-get -q update >"$corpus/log" 2>&1 </dev/null
}

corpus_unpack() { # folder packages…
	local folder=$corpus/$1 deb
	shift
	mkdir -p "$folder/debs"
	(cd "$folder/debs" && APT_CONFIG=$corpus/apt/conf apt-get -q download "$@") \
		>>"$corpus/log" 2>&1 </dev/null || return 1
	for deb in "$folder"/debs/*.deb; do
		dpkg-deb -x "$deb" "$folder" && rm "$deb"
	done
}

# All that comes from elsewhere. What failed is in $corpus/why.
corpus_fetch() {
	local p amd64='' arm64=''
	[ ! -f "$corpus/fetched" ] || return 0
	corpus_apt || {
		echo "no package lists of Debian (see $corpus/log)" >"$corpus/why"
		return 1
	}
	for p in $corpus_both; do
		amd64="$amd64 $p:amd64" arm64="$arm64 $p:arm64"
	done
	# shellcheck disable=SC2086 # one word a package
	if ! corpus_unpack amd64 $amd64 || ! corpus_unpack arm64 $arm64 ||
		! corpus_unpack tools $corpus_here; then
		echo "packages cannot be had (see $corpus/log)" >"$corpus/why"
		return 1
	fi
	# shellcheck disable=SC2086
	corpus_unpack later $corpus_later || rm -rf "$corpus/later"
	mkdir -p "$corpus/src"
	# shellcheck disable=SC2086
	(cd "$corpus/src" && APT_CONFIG=$corpus/apt/conf apt-get -q source --download-only \
		$corpus_sources && for p in *.orig.tar.*; do tar xf "$p" || exit 1; done) \
		>>"$corpus/log" 2>&1 </dev/null || {
		echo "sources cannot be had (see $corpus/log)" >"$corpus/why"
		return 1
	}
	touch "$corpus/fetched"
}

corpus_tool() { # name args…: binutils for arm64
	LD_LIBRARY_PATH=$corpus/tools/usr/lib/x86_64-linux-gnu \
		"$corpus/tools/usr/bin/aarch64-linux-gnu-$1" "${@:2}"
}

# make NAME COMMAND…: runs it with the output's name last, unless the output is there; strips a copy.
corpus_make() {
	local name=$1 strip=strip
	shift
	[ ! -f "$corpus_bin/$name.stripped" ] || return 0
	"$@" "$corpus_bin/$name" >>"$corpus/log" 2>&1 </dev/null || {
		echo "$name: $*" >>"$corpus/failed"
		return 1
	}
	case $name in *-arm64*) strip='corpus_tool strip' ;; esac
	$strip -o "$corpus_bin/$name.stripped.new" "$corpus_bin/$name" &&
		mv "$corpus_bin/$name.stripped.new" "$corpus_bin/$name.stripped"
}

# A host program with the library inside and its API exported.
corpus_static_amd64() { # archive output
	echo 'int main(void) { return 0; }' >"$corpus/host.c"
	gcc -O2 -Wl,-E,--build-id -o "$2" "$corpus/host.c" -Wl,--whole-archive "$1" \
		-Wl,--no-whole-archive -lm -ldl
}

# The same, without a C library: it is never run.
corpus_static_arm64() {
	corpus_tool ld -pie -E --build-id --eh-frame-hdr --unresolved-symbols=ignore-all \
		-e lua_newstate -o "$2" --whole-archive "$1"
}

corpus_shared() { # source-folder "compiler and options" output
	local files
	files=$(find "$1" -name '*.c' ! -name lua.c ! -name luac.c ! -name print.c)
	# shellcheck disable=SC2086 # options and files are words
	$2 -w -DLUA_USE_LINUX -DLUA_COMPAT_ALL -fPIC -shared -Wl,--build-id -o "$3" $files
}

corpus_luajit() { # output: LuaJIT with 32-bit references
	local folder
	folder=$(echo "$corpus"/src/luajit2-*/)
	MAKEFLAGS='' make -C "$folder/src" -s BUILDMODE=dynamic TARGET_STRIP=@: \
		XCFLAGS=-DLUAJIT_DISABLE_GC64 libluajit.so && cp "$folder/src/libluajit.so" "$1"
}

corpus_go() { # root "VARIABLE=value…" "options" output
	local root=$1
	mkdir -p "$corpus/go"
	cat >"$corpus/go/main.go" <<-'GO'
		package main

		func main() { println("corpus") }
	GO
	# shellcheck disable=SC2086
	env GOROOT="$root" GOCACHE="$corpus/go/cache" GOPATH="$corpus/go/path" HOME="$corpus/go" \
		GO111MODULE=off GOTOOLCHAIN=local GOFLAGS= $2 "$root/bin/go" build $3 -o "$4" \
		"$corpus/go/main.go"
}

corpus_build_c() {
	local v m lib
	for m in amd64:x86_64 arm64:aarch64; do
		lib=$corpus/${m%%:*}/usr/lib/${m##*:}-linux-gnu
		for v in lua5.1 lua5.2 lua5.3 lua5.4 luajit-5.1; do
			corpus_make "$v-${m%%:*}" "corpus_static_${m%%:*}" "$lib/lib$v.a"
		done
	done
	corpus_make lua5.1-clang corpus_shared "$(echo "$corpus"/src/lua*5.1.*/src)" 'clang-14 -O2'
	corpus_make lua5.2-O3 corpus_shared "$(echo "$corpus"/src/lua*5.2.*/src)" 'gcc -O3'
	corpus_make lua5.3-Os corpus_shared "$(echo "$corpus"/src/lua*5.3.*/src)" 'gcc -Os'
	corpus_make lua5.4-Os corpus_shared "$(echo "$corpus"/src/lua*5.4.*/src)" 'gcc -Os'
	corpus_make luajit-32bit corpus_luajit
}

corpus_build_go() {
	local go119=$corpus/tools/usr/lib/go-1.19 go122=$corpus/later/usr/lib/go-1.22
	corpus_make go1.19 corpus_go "$go119" CGO_ENABLED=0 ''
	corpus_make go1.19-pie corpus_go "$go119" CGO_ENABLED=1 \
		'-buildmode=pie -ldflags=-linkmode=external'
	corpus_make go1.19-arm64 corpus_go "$go119" 'GOARCH=arm64 CGO_ENABLED=0' ''
	[ ! -d "$go122" ] || corpus_make go1.22 corpus_go "$go122" CGO_ENABLED=0 ''
}

# Compilers go once all is made: they are large, the binaries are not.
corpus_build() {
	local go
	mkdir -p "$corpus_bin"
	rm -f "$corpus/failed"
	[ ! -f "$corpus/built" ] || return 0
	corpus_build_go &
	go=$!
	corpus_build_c
	wait $go
	[ ! -f "$corpus/failed" ] || return 1
	touch "$corpus/built"
	rm -rf "$corpus/go" "$corpus/later" "$corpus/src" "$corpus"/tools/usr/{lib,share}/go-* \
		"$corpus/apt"
}
