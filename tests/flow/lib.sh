# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A private world for one test or demo: a directory, a runtime directory on tmpfs, a real nginx with
# Lua handlers, an agent, an aggregator, each on ports of its own, all ended and removed at the end.
# Only processes that were started here are signalled, by their ids.
set -u

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$top/build}
tidegate=$BUILD/tidegate

# ---- TAP ----
tap_count=0 tap_failed=0
ok() { # ok STATUS NAME
	tap_count=$((tap_count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $tap_count - $2"
	else
		echo "not ok $tap_count - $2"
		tap_failed=$((tap_failed + 1))
	fi
}
is() { # is GOT WANTED NAME
	if [ "$1" = "$2" ]; then ok 0 "$3"; else
		ok 1 "$3"
		echo "# got '$1', wanted '$2'"
	fi
}
skip_all() { echo "1..0 # SKIP $1"; exit 0; }
note() { echo "# $*"; }
tap_end() {
	world_end
	[ -z "$sanitizer_reports" ] || {
		ok 1 'no sanitizer reports anything'
		printf '# %s\n' "${sanitizer_reports//$'\n'/$'\n# '}"
	}
	echo "1..$tap_count"
	[ $tap_failed = 0 ]
	exit
}

# ---- waiting: a condition with a deadline, never a sleep that hopes ----
wait_for() { # wait_for SECONDS COMMAND...
	local deadline=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -ge $deadline ] && return 1
		read -rt 0.05 <> <(:) || true
	done
}
pause() { read -rt "$1" <> <(:) || true; }

# ---- the world ----
sanitizer_reports='' # what a build with SANITIZE= wrote into the logs
world_pids=() agent_pid='' aggregator_pid='' nginx_pid=''

# A port nobody listens on: from a range by process id, so that tests may run side by side, and below
# those that the kernel gives to clients.
port_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
next_port=$((10000 + ($$ * 16) % 22000))
new_port() { # sets $port; not in a subshell, or the counter would be lost
	next_port=$((next_port + 1))
	until port_free $next_port; do next_port=$((next_port + 1)); done
	port=$next_port
}

world_begin() { # world_begin NAME
	world=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-$1.XXXXXX")
	chmod 711 "$world"
	# Shared memory wants a tmpfs; /run is one wherever systemd runs.
	run=/run
	[ "$(stat -f -c %T /run)" = tmpfs ] || run=/dev/shm
	run=$run/tidegate-$1-$$
	rm -rf "$run" "$run-aggregator"
	trap world_end EXIT
	trap 'exit 130' INT TERM
	new_port; gateway_port=$port
	new_port; agent_port=$port
	new_port; aggregator_port=$port
	new_port; door_port=$port
	new_port; bus_port=$port
	new_port; snapshot_port=$port
	gateway=http://127.0.0.1:$gateway_port
	mkdir -p "$world/hooks"
	cp -r "$top/lua" "$world/lua" # the script process could not read a clone below /root
	drain_options=''
	agent_id=flow-$1-$$
	agent_options=''
	gateway_name=nginx
	write_config
}

# drain_options: lines below drain:, indented by two; agent_options: whole sections.
write_config() {
	cat >"$world/agent.yaml" <<-YAML
	runtime_dir: $run
	agent:
	  id: $agent_id
	gateways:
	  match: ["$gateway_name=nginx:$gateway_port"]
	uplink:
	  aggregators: ["tcp://127.0.0.1:$door_port"]
	spool:
	  dir: $world/spool
	http:
	  address: 127.0.0.1:$agent_port
	drain:
	  lua_dir: $world/lua
	  hooks_dir: $world/hooks
	$drain_options
	$agent_options
	YAML
	cat >"$world/aggregator.yaml" <<-YAML
	runtime_dir: $run-aggregator
	door:
	  address: tcp://127.0.0.1:$door_port
	  bus_address: tcp://127.0.0.1:$bus_port
	  snapshot_address: tcp://127.0.0.1:$snapshot_port
	fleet:
	  data_dir: $world/data
	api:
	  address: 127.0.0.1:$aggregator_port
	YAML
}

world_end() {
	local pid
	trap - EXIT
	# The second one ends a drain that nobody waits for any more.
	for pid in $agent_pid $aggregator_pid; do kill -TERM "$pid" 2>/dev/null; done
	[ -z "$agent_pid" ] || { wait_for 1 gone "$agent_pid" || kill -TERM "$agent_pid" 2>/dev/null; }
	for pid in $agent_pid $aggregator_pid; do wait_for 10 gone "$pid" || kill -KILL "$pid" 2>/dev/null; done
	[ -n "$nginx_pid" ] && kill -QUIT "$nginx_pid" 2>/dev/null
	for pid in "${world_pids[@]}"; do kill "$pid" 2>/dev/null; done
	[ -n "$nginx_pid" ] && { wait_for 5 gone "$nginx_pid" || kill -TERM "$nginx_pid" 2>/dev/null; }
	[ -n "${agent_id:-}" ] && "$tidegate" agent --detach --config "$world/agent.yaml" 2>/dev/null
	sanitizer_reports=$(grep -hE -A 30 \
		'(Address|Leak|Thread)Sanitizer:|runtime error:|LeakSanitizer has' \
		"$world"/*.log 2>/dev/null | head -100)
	if [ -n "${KEEP_WORLD:-}" ]; then
		echo "# kept: $world" >&2
	else
		rm -rf "${world:?}" "${run:?}" "$run-aggregator"
	fi
}

gone() { ! kill -0 "$1" 2>/dev/null || [ "$(ps_state "$1")" = Z ]; }
ps_state() { sed -n 's/^.*) \(.\) .*/\1/p' "/proc/$1/stat" 2>/dev/null; }

# nginx_edit: a sed script for the configuration, for tests that need something else of it.
# Handlers: /fast /hello /work?us= /sleep?ms= /stall?ms=&n=&every= /garbage?kb= /gccollect /healthz; for benches /bench /turns?n=
start_nginx() { # start_nginx [WORKERS]
	mkdir -p "$world/nginx/logs" "$world/nginx/body"
	sed -e "s|@PORT@|$gateway_port|" -e "s|@WORKERS@|${1:-2}|" -e "s|@DIR@|$world/nginx|g" \
		-e "${nginx_edit:-}" "$top/packaging/examples/demo/nginx.conf" >"$world/nginx/nginx.conf"
	chmod 755 "$world/nginx"
	nginx -p "$world/nginx/" -c "$world/nginx/nginx.conf" >"$world/nginx/start.log" 2>&1 || {
		cat "$world/nginx/start.log" "$world/nginx/logs/error.log" >&2
		return 1
	}
	wait_for 5 test -s "$world/nginx/nginx.pid" || return 1
	nginx_pid=$(cat "$world/nginx/nginx.pid")
	wait_for 5 curl -sf "$gateway/fast"
}

start_aggregator() {
	"$tidegate" aggregator --config "$world/aggregator.yaml" >>"$world/aggregator.log" 2>&1 &
	aggregator_pid=$!
	wait_for 10 curl -sf "http://127.0.0.1:$aggregator_port/readyz" && return
	tail -20 "$world/aggregator.log" >&2
	return 1
}

start_agent() {
	"$tidegate" agent --config "$world/agent.yaml" >>"$world/agent.log" 2>&1 &
	agent_pid=$!
	wait_for 20 agent_sees_gateway && return
	tail -30 "$world/agent.log" >&2
	return 1
}
agent_sees_gateway() { agent_metric tidegate_workers | grep -q '[1-9]'; }

stop_agent() {
	kill -TERM "$agent_pid" && wait "$agent_pid"
	local code=$?
	agent_pid=''
	return $code
}

child_pid() { # child_pid SUPERVISOR NAME
	local stat
	for stat in $(cat /proc/"$1"/task/"$1"/children 2>/dev/null); do
		[ "$(cat "/proc/$stat/comm" 2>/dev/null)" = "tg-$2" ] && echo "$stat" && return
	done
	return 1
}

# ---- numbers ----
# Sum of a metric's series whose labels match a pattern; fails when there is none.
sum_metric() { # sum_metric TEXT NAME [LABEL-PATTERN]
	awk -v name="$2" -v want="${3:-}" '
		index($0, name "{") == 1 || index($0, name " ") == 1 {
			if (want == "" || $0 ~ want) { sum += $NF; seen = 1 }
		}
		END { if (!seen) exit 1; printf "%.17g\n", sum }' <<<"$1"
}
agent_metric() { sum_metric "$(curl -sf "http://127.0.0.1:$agent_port/metrics")" "$@"; }
fleet_metric() { sum_metric "$(curl -sf "http://127.0.0.1:$aggregator_port/metrics")" "$@"; }
access_log_lines() { awk -v p="${1:-}" 'p == "" || index($0, p)' "$world/nginx/logs/access.log" | wc -l; }
