#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a sample costs the aggregator (door, gate, core and their supervisor), beside Prometheus's
# remote-write receiver that gets the same samples in the same pattern: 200 standard agents, a
# connection each, the next request as soon as the last is answered; once with one tick a request, as
# agents send, and once with five, as many samples as Prometheus itself puts into a request. Both
# receivers write what they acknowledge to disk; simulators are not counted, nor what both do with it
# later (Prometheus after two hours; minutes of history here: 75 s of fleet-growth.b's 10,000 agents, a
# minute written, took no more CPU a second than 12).
source "$(dirname "$0")/lib.sh"

agents=200 seconds=10
peer_pid='' peer_port=''
start_peer() {
	command -v prometheus >/dev/null || return 1
	new_port; peer_port=$port
	echo 'global: {}' >"$world/prometheus.yml"
	prometheus --config.file="$world/prometheus.yml" --storage.tsdb.path="$world/tsdb" \
		--web.listen-address="127.0.0.1:$peer_port" --web.enable-remote-write-receiver \
		--enable-feature=native-histograms --log.level=error >"$world/prometheus.log" 2>&1 &
	peer_pid=$!
	world_pids+=("$peer_pid")
	wait_for 20 curl -sf "http://127.0.0.1:$peer_port/-/ready"
}

world_begin bench-ingest
start_aggregator || exit 1
start_peer || peer_pid=''
sent=0
for ticks in 1 5; do
	simulate --interval 0 --ticks $ticks $agents $seconds || exit 1
	sent=$((sent + $(simulated total)))
	[ "$(simulated unacknowledged)$(simulated refused)" = 00 ] || exit 1
	ours=$(ratio "$spent_ns" "$(simulated samples)") peer='' peer_ns=''
	echo "# $(simulated samples) samples acknowledged in $((spent_ns / 1000000)) ms of CPU"
	if [ -n "$peer_pid" ]; then
		before=$(cpu_ns "$peer_pid")
		result=$("$BUILD/tests/bench/load/remote" --ticks $ticks "127.0.0.1:$peer_port" $agents $seconds) || exit 1
		peer_ns=$(ratio $(($(cpu_ns "$peer_pid") - before)) "$(jq .samples <<<"$result")")
		peer="Prometheus $(prometheus --version 2>&1 | sed -n 's/^prometheus, version \([^ +]*\).*/\1/p') ($peer_ns ns)"
	fi
	row "ingest_cpu_a_sample_${ticks}_a_request" "$ours" ns "$peer" "$(ratio "$ours" "${peer_ns:-0}")" "${peer_ns:+0.2}"
	row "ingest_samples_a_core_${ticks}_a_request" "$(ratio 1000000000 "$ours")" "samples/s" "" "" ""
done
# A figure for what was lost on the way would be worth nothing.
[ "$(fleet_total)" = "$sent" ] || { echo "bench: totals differ: $(fleet_total), sent $sent" >&2; exit 1; }
world_end
