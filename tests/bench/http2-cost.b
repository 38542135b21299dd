#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# CPU time of a saturated nginx per HTTP/2 request (plain text, ten streams a connection), with all
# always-on probes against without, one after the other in pairs; medians of the pairs' ratios. Beside
# it what the program that reads and writes takes a request, by the kernel's BPF statistics. PAIRS: how
# many.
source "$(dirname "$0")/lib.sh"

command -v h2load >/dev/null || { echo "# h2load is not installed"; exit 0; }
world_begin bench-http2
pairs=${PAIRS:-10}
requests=${REQUESTS:-60000}
drain_options='  on_sigterm: never'
write_config
nginx_edit='s|listen \(.*\) backlog=511;|listen \1 backlog=511 http2;|'
mkdir -p "$world/nginx/logs" "$world/nginx/body"
sed -e "s|@PORT@|$gateway_port|" -e "s|@WORKERS@|1|" -e "s|@DIR@|$world/nginx|g" -e "$nginx_edit" \
	-e 's|access_log .*|access_log off;|' "$top/packaging/examples/demo/nginx.conf" >"$world/nginx/nginx.conf"
nginx -p "$world/nginx/" -c "$world/nginx/nginx.conf" >"$world/nginx/start.log" 2>&1 || exit 1
wait_for 5 test -s "$world/nginx/nginx.pid" || exit 1
nginx_pid=$(cat "$world/nginx/nginx.pid")
wait_for 5 curl -sf --http2-prior-knowledge "$gateway/fast" || exit 1
worker=$(pgrep -P "$nginx_pid" | head -1)
stats_before=$(cat /proc/sys/kernel/bpf_stats_enabled)
restore() {
	echo "$stats_before" >/proc/sys/kernel/bpf_stats_enabled
	world_end
}
trap restore EXIT

per_request() { # per_request PATH: ns of CPU a request
	local before after
	before=$(cpu_ns "$worker")
	h2load -n $requests -c 4 -m 10 "$gateway$1" >"$world/h2load.txt" 2>&1
	grep -q " $requests succeeded" "$world/h2load.txt" || return 1
	after=$(cpu_ns "$worker")
	echo $(((after - before) / requests))
}
# Nanoseconds of our programs, those that were loaded after $known, since they were.
programs_ns() {
	bpftool prog show --json | jq --argjson known "$known" '[.[] | select(.name | test("^(enter|exit)_")) |
		select(.id as $i | $known | index($i) | not) | .run_time_ns // 0] | add // 0'
}

for ((i = 0; i < pairs; i++)); do
	for side in $((i % 2)) $(((i + 1) % 2)); do
		[ "$side" = 0 ] || { start_agent 2>/dev/null && wait_for 5 agent_metric tidegate_connections_open; }
		for path in fast hello; do
			per_request /$path >>"$world/$path.$side" || { sed "s/^/# /" "$world/h2load.txt"; exit 1; }
		done
		[ "$side" = 0 ] || { stop_agent; "$tidegate" agent --detach --config "$world/agent.yaml"; }
	done
done
for path in fast hello; do
	paste "$world/$path.1" "$world/$path.0" | awk '{print $1 / $2}' | median >"$world/$path.ratio"
	row "HTTP/2: CPU of a request, /$path" "$(median <"$world/$path.1")" ns "without probes" \
		"$(cat "$world/$path.ratio")" ""
done
known=$(bpftool prog show --json | jq -c '[.[].id]')
start_agent 2>/dev/null
echo 1 >/proc/sys/kernel/bpf_stats_enabled
before=$(programs_ns)
per_request /fast >/dev/null
row "HTTP/2: probes of a request, /fast" $((($(programs_ns) - before) / requests)) ns "" "" ""
