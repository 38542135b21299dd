#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# doctor on a running nginx says for each probe how and why; what is taken away changes exactly the
# states of what needs it, and is named.
source "$(dirname "$0")/lib.sh"

world_begin doctor
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
doctor() { "$@" "$tidegate" doctor --json --config "$world/agent.yaml" 2>"$world/err"; }
states() { jq -r '.checks[] | "\(.name)=\(.state)"' "$1" | sort; }

doctor env >"$world/whole.json"; is $? 0 "all that is needed is ok: exit 0"
is "$(jq -r '.gateways[0].name' "$world/whole.json")" nginx "it finds nginx"
is "$(jq -r '.gateways[0].pid' "$world/whole.json")" "$nginx_pid" "by its master"
is "$(jq -r '.gateways[0].runtime' "$world/whole.json")" luajit "which runs LuaJIT"
is "$(jq -r '.gateways[0].gc.how' "$world/whole.json")" call-vote "found by the call vote"
is "$(jq -r '.gateways[0].gc.state' "$world/whole.json")" ok "and probed"
is "$(jq -r '[.checks[] | select(.state != "ok" and .why == "")] | length' "$world/whole.json")" 0 \
	"whatever is not ok says why"
for check in cgroups pressure accept-queues bpf-statistics; do
	state=$(jq -r ".checks[] | select(.name == \"$check\") | .state" "$world/whole.json")
	[ -n "$state" ]; ok $? "$check is told: $state"
done
is "$(jq -r '.checks[] | select(.name == "pressure") | .state' "$world/whole.json")" \
	"$([ -r /proc/pressure/cpu ] && echo ok || echo unavailable)" "pressure as the kernel has it"
for probe in syscalls loop requests; do
	how=$(jq -r ".checks[] | select(.name == \"$probe\") | .how" "$world/whole.json")
	[ -n "$how" ]; ok $? "$probe by $how"
done

without() { # without CAP

	setpriv --bounding-set "-$1" --inh-caps "-$1" "$tidegate" doctor --json \
		--config "$world/agent.yaml" >"$world/without.json" 2>"$world/err"
}
without bpf; is $? 1 "without CAP_BPF: exit 1"
jq -r '.checks[] | select(.name == "capabilities") | .why' "$world/without.json" | grep -q CAP_BPF
ok $? "and CAP_BPF is named"
is "$(jq -r '[.checks[] | select(.name == ("syscalls", "loop", "requests")) | .state] | unique | join(",")' \
	"$world/without.json")" unavailable "the probes that need it are unavailable"
is "$(jq -r '.checks[] | select(.name == ("btf", "lockdown", "shared-memory")) | .state' "$world/without.json")" \
	"$(jq -r '.checks[] | select(.name == ("btf", "lockdown", "shared-memory")) | .state' "$world/whole.json")" \
	"nothing else changed"

without sys_ptrace; is $? 1 "without CAP_SYS_PTRACE: exit 1"
jq -r '.checks[] | select(.name == "gateways") | .why' "$world/without.json" | grep -q CAP_SYS_PTRACE
ok $? "finding gateways names it"
others() { jq -r '.checks[] | "\(.name)=\(.state)"' "$1" | grep -v '^gateways=\|^capabilities='; }
is "$(others "$world/without.json")" "$(others "$world/whole.json")" "and nothing else changed"

# One symbol: nginx runs on a copy of LuaJIT in whose file the name lua_gc is then overwritten.
lib=$(grep -o '/[^ ]*libluajit-5.1.so[^ ]*' "/proc/$(cut -d' ' -f1 "/proc/$nginx_pid/task/$nginx_pid/children")/maps" | head -1)
mkdir -p "$world/lib"
copy=$world/lib/libluajit-5.1.so.2
cp "$lib" "$copy"
kill -QUIT "$nginx_pid"; wait_for 5 gone "$nginx_pid"
LD_LIBRARY_PATH=$world/lib start_nginx 2; ok $? "nginx runs on a copy of $(basename "$lib")"
doctor env >"$world/copy.json"
is "$(jq -r '.gateways[0].gc.state' "$world/copy.json")" ok "whose collector is found"
at=$(LC_ALL=C grep -obaP '\x00lua_gc\x00' "$copy" | head -1 | cut -d: -f1)
printf x | dd of="$copy" bs=1 seek=$((at + 5)) conv=notrunc 2>/dev/null
doctor env >"$world/nosym.json"
is "$(jq -r '.gateways[0].gc.state' "$world/nosym.json")" unavailable "without lua_gc: GC is unavailable"
jq -r '.gateways[0].gc.why' "$world/nosym.json" | grep -q lua_gc; ok $? "and lua_gc is named"
is "$(states "$world/nosym.json")" "$(states "$world/copy.json")" "nothing else changed"

# A path of any bytes: shown, and not obeyed by the terminal.
kill -QUIT "$nginx_pid"; wait_for 5 gone "$nginx_pid"
odd=$world/odd$'\xff\e[2J'
mkdir "$odd" && cp "$(command -v nginx)" "$odd/nginx"
PATH=$odd:$PATH start_nginx 2; ok $? "nginx runs from a path that is no text"
doctor env >"$world/odd.json"
is "$(jq -r '.gateways[0].exe' "$world/odd.json")" "$world/odd??[2J/nginx" "doctor shows it, and its path in text"
tap_end
