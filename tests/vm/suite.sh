# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# suite META [TEST...]: every test of tests/bpf (or these, count.t by name) that can run in a small
# machine runs on the kernel of that package, with all rungs that the kernel has; the counts run
# again in a pid namespace of their own. Emulation is slow, so make check takes VM_SUITE=counts: all
# rungs of count.t, and one in a pid namespace; make check-vm takes all.
suite_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite_top=$(cd "$suite_here/../.." && pwd)
BUILD=${BUILD:-$suite_top/build}
export BUILD

suite_count=0 suite_failed=0
ok() { # ok STATUS NAME
	suite_count=$((suite_count + 1))
	if [ "$1" = 0 ]; then echo "ok $suite_count - $2"; else
		echo "not ok $suite_count - $2"
		suite_failed=$((suite_failed + 1))
	fi
	return "$1"
}

# Why a test is left out; nothing when it is not.
left_out() {
	case $1 in
	examine.t | finder-corpus.t)
		echo "reads files: the kernel is nothing to it"
		return
		;;
	gc_openjdk.t) echo "a JVM is 200 MB of files" ;;
	gc-budget.t) echo "what a step costs in emulation says nothing of a budget" ;;
	count.t) ;;
	*) [ "${VM_SUITE:-all}" = all ] || echo "make check-vm runs it" ;;
	esac
}
# What a test is told, where all of it would take minutes.
arguments() { [ "$1" != http2.t ] || echo "all 41"; }

# What the shell tests call, and what their gateways read.
suite_tools="bash sh env ls cat sed awk grep tr cut sort head tail wc xargs dirname basename readlink mktemp
	mkdir rm cp mv ln chmod touch sleep kill stat id date seq tee true uname ps pgrep curl jq hey
	nginx haproxy caddy unshare mount umount ldconfig nproc"
suite_files="/etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.cache /usr/share/lua/5.1/resty
	/usr/lib/nginx/modules/ndk_http_module.so /usr/lib/nginx/modules/ngx_http_lua_module.so"

# What a test said between its VM-BEGIN and VM-END.
said() { awk -v at="$1" '/^VM-BEGIN /{on = substr($0, 10) == at} on; /^VM-TOOK /{on = 0}' "$log"; }
ended() { grep -Fxq "VM-END 0 $1" "$log"; }

suite() {
	local meta=$1 with=() commands=() command tool file test tests=() kernel why skips passes rung took
	shift
	for tool in $suite_tools; do
		file=$(type -P "$tool") && with+=(--with "$(readlink -f "$file")")
		# The name that is called, if it is an alternative's.
		[ -z "$file" ] || [ "$file" = "$(readlink -f "$file")" ] || with+=(--with "$file")
	done
	for file in $suite_files "$suite_top"/tests/{bpf,flow} /lib/x86_64-linux-gnu/libnss_files.so.2 \
		/usr/lib/x86_64-linux-gnu/{libluajit-5.1,liblua5.3,liblua5.4,libcapstone}.so* \
		"$BUILD/tests/bpf/workload"; do
		[ ! -e "$file" ] || with+=(--with "$file")
	done
	for test in "$BUILD"/tests/bpf/*.t "$suite_top"/tests/bpf/*.t; do
		# Built files of sources that are gone are nobody's tests.
		[ "${test%/*}" = "$suite_top/tests/bpf" ] ||
			[ -e "$suite_top/tests/bpf/$(basename "$test" .t).c" ] || continue
		# The shell tests watch with programs built from C.
		with+=(--with "$test")
		[ $# = 0 ] || case " $* " in *" ${test##*/} "*) ;; *) continue ;; esac
		if why=$(left_out "${test##*/}") && [ -n "$why" ]; then
			suite_count=$((suite_count + 1))
			echo "ok $suite_count - $meta: ${test##*/} # SKIP $why"
			continue
		fi
		tests+=("${test##*/}")
		command="$test $(arguments "${test##*/}")"
		commands+=("/usr/bin/env BUILD=$BUILD ${command% }")
		[ "${test##*/}" = count.t ] || continue
		tests+=("count.t in a pid namespace")
		command="/usr/bin/unshare -p -f --mount-proc $test"
		[ "${VM_SUITE:-all}" = all ] || command="$command fentry"
		commands+=("$command")
	done
	log=$BUILD/vm/$meta.log
	mkdir -p "$BUILD/vm"
	VM_SECONDS=${VM_SECONDS:-1500} "$suite_here/boot" "${with[@]}" "$meta" "/bin/uname -r" "${commands[@]}" \
		"$BUILD/tidegate doctor --json" 2>&1 | tr -d '\r' >"$log"
	kernel=$(grep -aEm1 '^6\.[0-9]+\.' "$log")
	[ -n "$kernel" ]; ok $? "$meta boots: ${kernel:-no}"
	for i in "${!tests[@]}"; do
		command=${commands[i]}
		passes=$(said "$command" | grep -a '^ok' | grep -avc '# SKIP')
		took=$(said "$command" | sed -n 's/^VM-TOOK //p')
		skips=$(said "$command" | grep -ac '# SKIP')
		ended "$command" && [ "$passes" -gt 0 ] && ! said "$command" | grep -aq '^not ok'
		ok $? "$kernel: ${tests[i]}: $passes passed, $skips skipped, ${took:-?} s" ||
			said "$command" | grep -a -A3 '^not ok\|^#\|^VM-END' | head -20 | sed 's/^/# /'
		case ${tests[i]} in
		count.t*)
			for rung in fentry tp_btf raw_tp tracepoint; do
				case $command in *count.t\ fentry) [ $rung = fentry ] || continue ;; esac
				said "$command" | grep -a "^ok.* - $rung: requests\|^ok.* - $rung: all requests" |
					grep -avq SKIP
				ok $? "$kernel: ${tests[i]}: $rung is among them"
			done
			;;
		esac
	done
	grep -aq '"how": "fentry"' "$log"; ok $? "$kernel: doctor chooses fentry"
	echo "1..$suite_count"
	[ $suite_failed = 0 ]
}
