#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `tidegate top` driven in a real terminal (tmux), with two nginx under load: sort, filter, details,
# pause, help, resize, an agent that hangs; and --once --json, whose totals equal `tidegate metrics`.
source "$(dirname "$0")/lib.sh"

command -v tmux >/dev/null || skip_all 'tmux is not installed'
world_begin top
# tmux starts one server a socket; this one ends with kill-server, and lives in our directory.
terminal() { tmux -S "$world/tmux" -f /dev/null "$@" 2>/dev/null; }
trap 'terminal kill-server; world_end' EXIT

new_port; second_port=$port
write_config
sed -i "s|match: .*|match: [\"web=nginx:$gateway_port\", \"api=nginx:$second_port\"]|" \
	"$world/agent.yaml"
view=("$tidegate" top --config "$world/agent.yaml")

"${view[@]}" --once >"$world/none" 2>"$world/none.err"
is $? 1 "no agent: exit code 1"
is "$(wc -l <"$world/none.err") $(grep -c 'the agent is not running there' "$world/none.err")" '1 1' \
	"and one line that says so"

start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
mkdir -p "$world/second/logs" "$world/second/body"
sed -e "s|$gateway_port|$second_port|" -e "s|$world/nginx|$world/second|g" \
	-e 's/^worker_processes.*/worker_processes 1;/' "$world/nginx/nginx.conf" >"$world/second/nginx.conf"
nginx -p "$world/second/" -c "$world/second/nginx.conf" 2>/dev/null
wait_for 5 test -s "$world/second/nginx.pid"
world_pids+=("$(cat "$world/second/nginx.pid")")
start_agent
both() { agent_metric tidegate_workers gateway=.api && agent_metric tidegate_workers gateway=.web; }
wait_for 10 both; ok $? "both gateways are found"

# ---- numbers: a known load, and then quiet ----
hey -n 601 -c 1 "$gateway/hello" >/dev/null 2>&1
hey -n 307 -c 1 "http://127.0.0.1:$second_port/nothing" >/dev/null 2>&1
counted() {
	[ "$(agent_metric tidegate_requests_total 'gateway="web".*code="200"')" = 601 ] &&
		[ "$(agent_metric tidegate_requests_total 'gateway="api".*code="404"')" = 307 ]
}
wait_for 5 counted; ok $? "the agent counted the load"
"${view[@]}" --once --json --interval 0.2 >"$world/json"
is $? 0 "--once --json ends with 0"
metrics=$("$tidegate" metrics --config "$world/agent.yaml")
is "$(wc -l <"$world/json")" 1 "one line"
is "$(jq -r '"\(.version) \(.stale) \(.window_seconds > 0) \([.gateways[].gateway] | sort | join(","))"' \
	"$world/json")" '1 false true api,web' "version, freshness, window, gateways"
# Everything in it that is a total, beside what `tidegate metrics` says of the same.
jq -r '.gateways[] | .gateway as $g |
	(.requests[] | "tidegate_requests_total \($g) \(.method) \(.code) \(.total)"),
	(.syscalls[] | select(.syscall == "writev" or .syscall == "recvfrom") |
		"tidegate_syscalls_total \($g) \(.syscall) \(.total)"),
	(.histograms[] | select(.metric == "tidegate_request_duration_seconds") |
		"\(.metric)_count \($g) \(.labels.code_class) \(.total)"),
	(.accept_queues[] | "tidegate_accept_queue_limit \($g) \(.port) \(.limit)"),
	"tidegate_workers \($g) \(.workers)"' "$world/json" | sort >"$world/by-top"
sed -nE 's/^([a-z_]+)\{gateway="([^"]*)",instance="[^"]*",?(.*)\} ([^ ]+)$/\1 \2 \3 \4/p' <<<"$metrics" |
	sed -E 's/[a-z_]+="([^"]*)",?/\1 /g; s/  +/ /g' |
	grep -E '^(tidegate_requests_total|tidegate_syscalls_total .* (writev|recvfrom)|tidegate_request_duration_seconds_count|tidegate_accept_queue_limit|tidegate_workers) ' |
	sort >"$world/by-metrics"
is "$(cat "$world/by-top")" "$(cat "$world/by-metrics")" \
	"its $(wc -l <"$world/by-top") totals equal those of tidegate metrics"
[ "$(wc -l <"$world/by-top")" -ge 10 ]; ok $? "which are some"
is "$(jq -r '.gateways[] | select(.gateway == "api") | .requests[] | "\(.code) \(.total)"' "$world/json")" \
	'404 307' "and what the client sent"
"${view[@]}" --once --interval 0.2 >"$world/text"
is "$(grep -cE '^(web|api) +live ' "$world/text")" 2 "--once prints a line a gateway"
missing=$(sed -nE 's/^TOP_COLUMN\([A-Z0-9_]+, "([a-z0-9_]+)".*/\1/p' "$top/agent/cmd/top_columns.def" |
	while read -r key; do grep -q "	$key	" "$top/packaging/man/tidegate.8.in" || echo "$key"; done)
is "$missing" '' "the manual names every key"

# ---- the terminal ----
hey -z 60s -c 2 -q 100 "$gateway/hello" >/dev/null 2>&1 &
world_pids+=($!)
hey -z 60s -c 1 -q 20 "http://127.0.0.1:$second_port/nothing" >/dev/null 2>&1 &
world_pids+=($!)
LC_ALL=C.UTF-8 terminal new-session -d -x 160 -y 30 \
	"LC_ALL=C.UTF-8 '$tidegate' top --interval 0.5 --config '$world/agent.yaml' 2>'$world/top.err'; echo ended with \$?; exec cat"
screen() { terminal capture-pane -p; }
shows() { screen | grep -qE -- "$1"; }
not_shows() { screen >"$world/screen" && [ -s "$world/screen" ] && ! grep -qE -- "$1" "$world/screen"; }
press() { terminal send-keys "$@"; }
names() { screen | sed -nE 's/^(web|api) .*/\1/p' | tr '\n' ' '; }
order_is() { [ "$(names)" = "$1" ]; }
wait_for 10 shows '^GATEWAY STATE +WRK REQ/S▾'; ok $? "the list, sorted by requests"
wait_for 10 shows '^web +live +2 +[0-9]{2,}[0-9.k]* '; ok $? "with rates under load"
colours() { terminal capture-pane -e -p | grep -cE $'\e''\[([0-9;]*;)?3[0-7]m'; }
[ "$(colours)" -gt 0 ]; ok $? "in colours, as this terminal has them"
wait_for 10 shows '[▁▂▃▄▅▆▇█]{3}'; ok $? "and bars of those"
wait_for 10 order_is 'web api '; ok $? "the busier one first"
press r; wait_for 5 order_is 'api web '; ok $? "r: the other way around"
press '<'; wait_for 5 shows '^GATEWAY STATE +WRK▾'; ok $? "<: by the column before"
press '<'; wait_for 5 shows '^GATEWAY▴'; ok $? "and by name"
wait_for 5 order_is 'api web '; ok $? "names rise"
press /; press -l WE; wait_for 5 order_is 'web '; ok $? "/: what does not match is gone at once"
wait_for 5 shows 'filter: WE_'; ok $? "what is typed is shown"
press Enter; press Enter; wait_for 5 shows '^web  instance .*nginx.*master [0-9]+'
ok $? "Enter: details of the gateway"
wait_for 5 shows '^SYSTEM CALLS .*TIME'; ok $? "with system calls"
wait_for 5 shows '^GET 200 +[0-9.k]+ +[0-9.k]+'; ok $? "and requests by status"
press Escape; wait_for 5 order_is 'api web '; ok $? "Escape: back to all"
press '?'; wait_for 5 shows '^space +pause'; ok $? "?: help"
press q
wait_for 5 shows '^ended with 0'; ok $? "q: the end, with 0"
is "$(cat "$world/top.err")" '' "and nothing on stderr"

# ---- pause, resize, an agent that hangs; without UTF-8 and colours ----
terminal new-window -n two "LC_ALL=C NO_COLOR=1 '$tidegate' top --interval 0.2 --config '$world/agent.yaml'; echo ended with \$?; exec cat"
wait_for 10 shows '^GATEWAY STATE +WRK REQ/Sv'; ok $? "without UTF-8 the arrow is a letter"
is "$(screen | LC_ALL=C grep -c '[^ -~]')" 0 "and all is ASCII"
is "$(colours)" 0 "NO_COLOR: no colours"
clock() { screen | sed -nE '1s/^tidegate top +([0-9:]+) .*/\1/p'; }
press Space; wait_for 5 shows PAUSED; ok $? "space: paused"
held=$(clock)
ticks() { "$tidegate" metrics --segment "$run/host.seg" | sum_metric "$(cat)" tidegate_requests_total 'gateway="web"'; }
since=$(ticks)
# The values went on while the screen stood.
went_on() { [ "$(ticks)" -gt $((since + 300)) ]; }
wait_for 10 went_on; ok $? "while the load went on"
is "$(clock)" "$held" "the screen stands"
press Space; moved() { [ -n "$(clock)" ] && [ "$(clock)" != "$held" ]; }
wait_for 5 moved; ok $? "and goes on"
terminal resize-window -x 60 -y 12
wait_for 5 not_shows 'BUSY'; ok $? "a narrow terminal shows fewer columns"
wait_for 5 shows '^q quit'; ok $? "and the keys in its last line"
screen | awk 'length > 60 {exit 1}'; ok $? "nothing is wider than it"
terminal resize-window -x 200 -y 30
wait_for 5 shows 'BUSY.*UP P99'; ok $? "a wide one more"
keeper=$(child_pid "$agent_pid" keeper)
kill -STOP "$keeper"
wait_for 10 shows 'DATA IS [0-9.]+s OLD'; ok $? "an agent that hangs: how old the values are"
"${view[@]}" --once --json >"$world/old"
is "$? $(jq '.stale and .age_seconds > 3' "$world/old")" '0 true' "--once --json says it too"
kill -CONT "$keeper"
wait_for 10 not_shows OLD; ok $? "and that it goes on"
press -l x; press C-c; wait_for 5 shows '^ended with 0'; ok $? "Ctrl-C ends it, too"
terminal kill-server
tap_end
