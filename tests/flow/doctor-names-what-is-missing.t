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

# One symbol: a copy of LuaJIT in which the name lua_gc is gone.
lib=$(grep -o '/[^ ]*libluajit-5.1.so[^ ]*' "/proc/$(cut -d' ' -f1 "/proc/$nginx_pid/task/$nginx_pid/children")/maps" | head -1)
mkdir -p "$world/lib"
sed 's/\x00lua_gc\x00/\x00lux_gc\x00/' "$lib" >"$world/lib/$(basename "$lib")"
ln -sf "$(basename "$lib")" "$world/lib/libluajit-5.1.so.2"
note "library $lib"
sed 's/^daemon.*//' "$world/nginx/nginx.conf" >"$world/nginx/nosym.conf"
kill -QUIT "$nginx_pid"; wait_for 5 gone "$nginx_pid"
if LD_LIBRARY_PATH=$world/lib nginx -p "$world/nginx/" -c "$world/nginx/nosym.conf" >/dev/null 2>&1; then
	wait_for 5 test -s "$world/nginx/nginx.pid"
	nginx_pid=$(cat "$world/nginx/nginx.pid")
	doctor env >"$world/nosym.json"
	is "$(jq -r '.gateways[0].gc.state' "$world/nosym.json")" unavailable "without lua_gc: GC is unavailable"
	jq -r '.gateways[0].gc.why' "$world/nosym.json" | grep -q lua_gc
	ok $? "and lua_gc is named"
	is "$(states "$world/nosym.json")" "$(states "$world/whole.json")" "nothing else changed"
else
	ok 1 "nginx runs with the library without lua_gc"
fi
tap_end
