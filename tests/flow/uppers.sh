# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Aggregators by name, each with ports and directories of its own, and agents without probes that
# count for them: agent_NAME sends to its aggregators what a feed of its own counts (tests/chaos/feed),
# whose truth file says how much that was.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

feed=$BUILD/tests/chaos/feed
declare -A door_of api_of pid_of feed_of

# aggregator_write NAME [YAML]: sections besides its own.
aggregator_write() {
	local name=$1
	new_port; door_of[$name]=$port
	new_port; api_of[$name]=$port
	cat >"$world/$name.yaml" <<-YAML
	runtime_dir: $run/$name
	door:
	  address: tcp://127.0.0.1:${door_of[$name]}
	  bus_address: ipc://$run/$name/pub
	  snapshot_address: ipc://$run/$name/snap
	fleet:
	  data_dir: $world/$name/data
	api:
	  address: 127.0.0.1:${api_of[$name]}
	$(tr -d '\t' <<<"${2:-}")
	YAML
}
daemon_begin() { # daemon_begin NAME VERB... : in the background, its log in the world
	local name=$1
	shift
	"$@" >>"$world/$name.log" 2>&1 &
	pid_of[$name]=$!
	world_pids+=($!)
}
aggregator_begin() { daemon_begin "$1" "$tidegate" aggregator --config "$world/$1.yaml"; }
aggregator_is_ready() { curl -sf "http://127.0.0.1:${api_of[$1]}/readyz"; }

# agent_write NAME CLUSTER ADDRESS...
agent_write() {
	local name=$1 cluster=$2
	shift 2
	cat >"$world/$name.yaml" <<-YAML
	runtime_dir: $run/$name
	agent:
	  id: $name
	  cluster: "$cluster"
	  tick: 200ms
	gateways:
	  match: ["none=tidegate-nobody"]
	probe:
	  bpffs: ""
	uplink:
	  aggregators: [$(printf '"%s",' "$@" | sed 's/,$//')]
	  backoff: 500ms
	spool:
	  dir: $world/$name/spool
	http:
	  address: ""
	drain:
	  on_sigterm: never
	  lua_dir: $world/lua
	  hooks_dir: $world/hooks
	YAML
}
# Without the right to load programs the keeper, which has nothing to probe, starts at once.
agent_begin() {
	daemon_begin "$1" setpriv --bounding-set=-bpf,-perfmon,-sys_admin "$tidegate" agent \
		--sidecar --config "$world/$1.yaml"
	wait_for 10 test -S "$run/$1/control.sock"
}
feed_begin() { # feed_begin AGENT
	"$feed" "$world/$1.truth" "$run/$1" >>"$world/feed.log" 2>&1 &
	feed_of[$1]=$!
	world_pids+=($!)
	wait_for 10 test -s "$world/$1.truth"
}
feed_end() { kill -TERM "${feed_of[$1]}" && wait "${feed_of[$1]}"; }

# What was counted, as "total N VALUE" and "count N VALUE" (of each histogram), summed over agents.
truth_of() { # truth_of AGENT...
	local a files=()
	for a in "$@"; do files+=("$world/$a.truth"); done
	perl -e '
		my %sum;
		for my $file (@ARGV) {
			open my $in, "<:raw", $file or die "$file: $!\n";
			local $/;
			my @w = unpack "Q<*", scalar <$in>;
			my ($agents, $counters, $histograms, $values) = splice @w, 0, 4;
			splice @w, 0, $values;
			$sum{"total $_"} += $w[$_] for 0 .. $counters - 1;
			splice @w, 0, $counters + 1;
			for my $h (0 .. $histograms - 1) { $sum{"count $h"} += shift @w for 1 .. $values }
		}
		print map { "$_ $sum{$_}\n" } sort keys %sum' "${files[@]}"
}
# The same of an aggregator, of one cluster ("": without).
told_by() { # told_by AGGREGATOR CLUSTER
	curl -sf "http://127.0.0.1:${api_of[$1]}/metrics" | awk -v cluster="$2" '
		function label(key) {
			if (!match($0, "[{,]" key "=\"[^\"]*\"")) return ""
			return substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 4)
		}
		label("cluster") != cluster { next }
		/^chaos_total{/ { sum["total " label("n")] += $NF }
		/^chaos_seconds_count{/ { sum["count " label("n")] += $NF }
		END { for (k in sum) printf "%s %.17g\n", k, sum[k] }' | LC_ALL=C sort
}
is_told() { # is_told AGGREGATOR CLUSTER AGENT...
	local at=$1 cluster=$2
	shift 2
	[ "$(told_by "$at" "$cluster")" = "$(truth_of "$@")" ]
}
# Both, where they differ.
told_differs() { diff <(told_by "$1" "$2") <(truth_of "${@:3}") | sed 's/^/# /'; }
kill_process() { # kill_process DAEMON PROCESS; waits until there is another
	local pid
	pid=$(child_pid "${pid_of[$1]}" "$2") || return
	kill -KILL "$pid" && wait_for 10 another_process "$1" "$2" "$pid"
}
another_process() { local now; now=$(child_pid "${pid_of[$1]}" "$2") && [ "$now" != "$3" ]; }
