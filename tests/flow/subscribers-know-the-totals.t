#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Three subscribers that share no code, Node's and nanomsg's of packaging/examples and `tidegate tail`,
# follow an aggregator while a script counts. They are stopped until messages were dropped for them;
# afterwards each knows that it missed some, and its totals are the script's and the aggregator's.
# nngcat hears them all the time, as a fourth.
source "$(dirname "$0")/lib.sh"
command -v nngcat >/dev/null || skip_all "nngcat (nng-utils) is not installed"
world_begin subscribers
examples=$top/packaging/examples/subscriber

# ---- the two clients ----
protoc-c --proto_path="$top/proto" --c_out="$world" "$top/proto/tidegate.proto" &&
	cc -Wall -Wextra -Werror -I"$world" -o "$world/subscriber" "$examples/c/subscriber.c" \
		"$world/tidegate.pb-c.c" -lnanomsg -lprotobuf-c -lzstd
ok $? "the example in C compiles"
# The registry is asked once; what came stays beside the build.
node=$BUILD/subscriber-node why=''
mkdir -p "$node"
cp "$examples/node/subscriber.js" "$node" || exit 1
if ! cmp -s "$examples/node/package.json" "$node/package.json" || [ ! -d "$node/node_modules/fzstd" ]; then
	cp "$examples/node/package.json" "$node"
	(cd "$node" && timeout 120 npm install --no-audit --no-fund --ignore-scripts --fetch-retries=1 >npm.log 2>&1) ||
		why="npm brings no protobufjs: $(grep -m 1 error "$node/npm.log")"
fi
command -v node >/dev/null || why='node is not installed'
cc -I"$top/lua/library" -o "$world/counting" "$top/tests/flow/counting.c" -L"$BUILD" -ltidegate \
	-Wl,-rpath,"$BUILD"
ok $? "the script that counts compiles"

# ---- the world ----
agent_options='app:
  series: 4096'
write_config
sed -i 's/^agent:/agent:\n  tick: 50ms/' "$world/agent.yaml"
sed -i 's/^door:/door:\n  subscriber_bytes: 256KiB/' "$world/aggregator.yaml"
start_nginx 1 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator is ready"
start_agent; ok $? "the agent sees the gateway"
TIDEGATE_RUNTIME_DIR=$run "$world/counting" 2000 >"$world/counted" 2>"$world/counting.err" &
counting_pid=$!
world_pids+=("$counting_pid")
fleet_counts() { [ "$(fleet_metric sold_total)" -gt 0 ]; }
wait_for 15 fleet_counts
r=$?
ok $r "the script's counters are in the fleet"
[ $r = 0 ] || {
	note "$(cat "$world/counting.err")"
	tap_end
}

bus=tcp://127.0.0.1:$bus_port snapshots=tcp://127.0.0.1:$snapshot_port
subscriber_pids=()
follow() { # follow NAME COMMAND...
	local name=$1
	shift
	"$@" >"$world/$name" 2>"$world/$name.err" &
	subscriber_pids+=($!)
	world_pids+=($!)
}
follow c "$world/subscriber" "$bus" "$snapshots" metrics/
follow tail "$tidegate" tail "$bus" --json --since snapshot --snapshots "$snapshots" --topic metrics/
nngcat --sub --dial "$bus" --subscribe metrics/nginx/ --raw >"$world/nngcat" 2>"$world/nngcat.err" &
world_pids+=($!)
if [ -z "$why" ]; then
	mkfifo "$world/asked"
	(cd "$node" && exec node subscriber.js "$top/proto/tidegate.proto" "$bus_port" "$snapshot_port") \
		<"$world/asked" >"$world/node" 2>"$world/node.err" &
	subscriber_pids+=($!)
	world_pids+=($!)
	exec {ask}>"$world/asked"
	wait_for 20 grep -q '"ready"' "$world/node"; ok $? "Node's has its snapshot"
else
	ok 0 "Node's has its snapshot # SKIP $why"
fi
wait_for 20 grep -q '^complete' "$world/c"; ok $? "C's has its snapshot"
wait_for 20 grep -q '"complete"' "$world/tail"; ok $? "tail has its snapshot"

# ---- stopped until something was dropped for each of them ----
kill -STOP "${subscriber_pids[@]}"
dropped() { [ "$(fleet_metric tidegate_door_dropped_total)" -gt "$1" ]; }
wait_for 60 dropped 300; ok $? "messages are dropped while they stand"
# What now stands still was last said in messages that nobody will get.
kill -USR1 "$counting_pid"
wait_for 60 dropped $(($(fleet_metric tidegate_door_dropped_total) + 900)); ok $? "and more of them"
kill -CONT "${subscriber_pids[@]}"

# ---- what they know ----
kill -TERM "$counting_pid"
wait "$counting_pid"
read -r sold sales <"$world/counted"
fleet_is() { [ "$(fleet_metric sold_total)" = "$sold" ]; }
wait_for 20 fleet_is; is "$(fleet_metric sold_total)" "$sold" "the fleet's total is the script's"

# What came since the publisher began anew for the last time.
of_this_life() { # of_this_life PATTERN FILE
	tac "$2" | sed "/^{*$1/q" | tac
}
# Of two values of a series the one of the higher sequence holds.
newest() { # newest, of lines KEY, SEQUENCE, VALUE, tabs between
	awk -F '\t' '$2 + 0 >= at[$1] + 0 { at[$1] = $2; value[$1] = $3 }
		END { for (k in value) sum += value[k]; printf "%.0f\n", sum }'
}
last_of() { # last_of METRIC
	awk -v metric="$1" '$1 == "series" && $4 == metric {
		key = $2
		for (i = 5; i < NF; i++) key = key " " $i
		print key "\t" $3 "\t" $NF
	}' <(of_this_life restart "$world/c") | newest
}
c_is() { [ "$(last_of sold_total)" = "$sold" ]; }
wait_for 30 c_is; is "$(last_of sold_total)" "$sold" "C's total is the script's"
is "$(last_of sale_seconds)" "$sales" "and so is its histogram"
ok "$(grep -q '^gap metrics/nginx/' "$world/c"; echo $?)" "C's knows that it missed something"

last_json() { # last_json METRIC FIELD
	jq -r --arg metric "$1" --arg field "$2" 'select(.series) | . as $m | .series[] |
		select(.metric == $metric) | [([$m.topic, .labels] | tostring), $m.sequence, .[$field]] |
		@tsv' <(of_this_life '"restart":' "$world/tail") | newest
}
tail_is() { [ "$(last_json sold_total value)" = "$sold" ]; }
wait_for 30 tail_is; is "$(last_json sold_total value)" "$sold" "tail's total is the script's"
is "$(last_json sale_seconds count)" "$sales" "and so is its histogram"
ok "$(grep -q '"gap":{"topic":"metrics/nginx/' "$world/tail"; echo $?)" "tail knows that it missed something"

node_total() {
	local answers
	answers=$(grep -c "\"metric\":\"$1\"" "$world/node")
	echo "$1" >&"$ask"
	wait_for 10 answered "$1" $((answers + 1))
	grep "\"metric\":\"$1\"" "$world/node" | tail -1 | jq -r .total
}
answered() { [ "$(grep -c "\"metric\":\"$1\"" "$world/node")" -ge "$2" ]; }
node_is() { [ "$(node_total sold_total)" = "$sold" ]; }
if [ -z "$why" ]; then
	wait_for 30 node_is; is "$(node_total sold_total)" "$sold" "Node's total is the script's"
	is "$(node_total sale_seconds)" "$sales" "and so is its histogram"
	ok "$(grep -q '"gap":{"topic":"metrics/nginx/' "$world/node"; echo $?)" "Node's knows that it missed something"
else
	ok 0 "Node's total is the script's # SKIP $why"
fi

# ---- another life of the publisher: nothing is counted any more, only snapshots can tell ----
is "$(grep -cE '^restart|"restart":' "$world/c" "$world/tail" | paste -sd ' ')" "$world/c:0 $world/tail:0" \
	"nothing began anew so far"
kill -KILL "$(child_pid "$aggregator_pid" core)"
wait_for 20 grep -q '^restart' "$world/c"; ok $? "the core is killed: C's knows that all begins anew"
wait_for 30 c_is; is "$(last_of sold_total)" "$sold" "and has the total again"
wait_for 20 grep -q '"restart":' "$world/tail"; ok $? "tail knows it"
wait_for 30 tail_is; is "$(last_json sold_total value)" "$sold" "and has the total again"
if [ -z "$why" ]; then
	wait_for 20 grep -q '"restart":' "$world/node"; ok $? "Node's knows it"
	wait_for 30 node_is; is "$(node_total sold_total)" "$sold" "and has the total again"
else
	ok 0 "Node's knows it # SKIP $why"
fi
tap_end
