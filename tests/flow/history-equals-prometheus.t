#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same questions to Prometheus, which scrapes the aggregator each second, and to the aggregator's
# own history: sums and rates agree within 3 % at each step that both answer, quantiles within 10 %
# (their scrapes lie up to a second apart from our ticks), and the core that is killed in between
# forgets nothing.
source "$(dirname "$0")/lib.sh"
command -v prometheus >/dev/null || skip_all 'prometheus is not installed'
command -v hey >/dev/null || skip_all 'hey is not installed'
world_begin history
new_port; prometheus_port=$port
api=http://127.0.0.1:$aggregator_port
peer=http://127.0.0.1:$prometheus_port

cat >"$world/prometheus.yaml" <<-YAML
scrape_configs:
  - job_name: fleet
    scrape_interval: 1s
    params: {by: [instance]}
    honor_labels: true
    static_configs: [{targets: ["127.0.0.1:$aggregator_port"]}]
YAML

start_nginx 2 && start_aggregator && start_agent || exit 1
prometheus --config.file="$world/prometheus.yaml" --storage.tsdb.path="$world/prometheus" \
	--web.listen-address="127.0.0.1:$prometheus_port" --log.level=error >"$world/prometheus.log" 2>&1 &
world_pids+=($!)
wait_for 30 curl -sf "$peer/-/ready"

ask() { curl -s --data-urlencode "query=$2" "$1/api/v1/query"; }
value() { ask "$1" "$2" | jq -r '.data.result[0].value[1] // empty'; }
range() { # range BASE QUERY START END
	curl -s --data-urlencode "query=$2" -d start="$3" -d end="$4" -d step=1 "$1/api/v1/query_range"
}
both_have() { [ "$(value "$api" "$1")" = "$2" ] && [ "$(value "$peer" "$1")" = "$2" ]; }

# An even load of two kinds for a while, so that rates have a level to agree on.
wait_for 20 both_have 'count(tidegate_workers)' 1
begun=$(date +%s)
hey -z 10s -c 2 -q 100 "$gateway/fast" >"$world/hey.1" 2>&1 &
hey -z 10s -c 2 -q 40 "$gateway/work?us=3000" >"$world/hey.2" 2>&1
wait $!
sent=$(awk '/\[200\]/ {n += $2} END {print n}' "$world"/hey.[12])
note "$sent requests"
total='sum(tidegate_requests_total{gateway="nginx",code="200"})'
reached() { [ "$(value "$1" "$total")" -ge "$sent" ]; }
wait_for 20 reached "$api" && wait_for 20 reached "$peer"
ok $? "both have counted $sent requests"
is "$(value "$api" "$total")" "$(value "$peer" "$total")" 'a sum is the same'

# Steps whose windows lie within the load.
start=$((begun + 7)) end=$((begun + 9))
agree() { # agree TOLERANCE NAME QUERY
	local verdict
	verdict=$(jq -rn --argjson tolerance "$1" \
		--argjson a "$(range "$api" "$3" $start $end)" --argjson b "$(range "$peer" "$3" $start $end)" '
		def values: [.data.result[] | .metric as $m | .values[] |
			{key: "\($m | tojson) \(.[0])", value: (.[1] | tonumber)}] | from_entries;
		($a | values) as $a | ($b | values) as $b |
		[$a | keys[] | select($b[.] != null)] as $common |
		[$common[] | select(($a[.] - $b[.] | fabs) > $tolerance * ([($b[.] | fabs), 1e-9] | max)) |
			"\(.): \($a[.]) and \($b[.])"] as $far |
		if ($common | length) < 3 then "only \($common | length) steps in common"
		elif ($far | length) > 0 then $far[0] else "" end')
	ok "$([ -z "$verdict" ]; echo $?)" "$2"
	[ -z "$verdict" ] || note "$verdict"
}
agree 0.03 'rates agree' 'sum(rate(tidegate_requests_total[5s]))'
agree 0.03 'rates by label agree' 'sum by (code, method) (rate(tidegate_requests_total{code="200"}[5s]))'
agree 0.03 'increases agree' 'sum without (worker, job) (increase(tidegate_requests_total{code=~"2.."}[5s]))'
agree 0.10 'quantiles agree' \
	'histogram_quantile(0.9, sum by (le) (rate(tidegate_request_duration_seconds_bucket[5s])))'
agree 0.10 'a mean agrees' \
	'sum(rate(tidegate_request_duration_seconds_sum[5s])) / sum(rate(tidegate_request_duration_seconds_count[5s]))'
agree 0.001 'gauges agree' 'max(tidegate_workers)'

# What Grafana's data source and KEDA's scaler ask.
is "$(curl -sf "$api/api/v1/status/buildinfo" | jq -r .status)" success 'build information'
is "$(value "$api" 1%2B1 2>/dev/null; curl -s --data 'query=1%2B1' "$api/api/v1/query" | jq -r '.data.result[1]')" 2 \
	'1+1, as a test of the connection'
is "$(curl -sG --data-urlencode "query=$total" --data-urlencode "time=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
	"$api/api/v1/query" | jq -r '.data.resultType, (.data.result | length)' | xargs)" 'vector 1' \
	'an instant vector of one, by GET with a time of RFC 3339'
labels() { curl -sG --data-urlencode 'match[]=tidegate_requests_total' "$1/api/v1/$2" | jq -c '.data'; }
is "$(labels "$api" labels)" "$(labels "$peer" labels | jq -c '. - ["job"]')" 'names of labels'
is "$(labels "$api" label/code/values)" "$(labels "$peer" label/code/values)" 'values of a label'
is "$(labels "$api" series)" "$(labels "$peer" series | jq -c 'map(del(.job))')" 'series'
is "$(curl -s "$api/api/v1/label/__name__/values" | jq -r '.data | index("tidegate_request_duration_seconds_bucket") != null')" \
	true 'names of metrics'
is "$(ask "$api" 'rate(up' | jq -r .errorType)" bad_data 'a query that is none'
is "$(curl -s "$api/api/v1/query_exemplars" | jq -r '.status, .errorType' | xargs)" 'error not_found' \
	'a path that is none, in the same shape'
is "$(curl -s -X POST "$api/api/v1/query?query=1%2B1" | jq -r '.data.result[1]')" 2 'a POST without a form'

# The core dies; what it had told is there again.
before=$(range "$api" "$total" $start $end | jq -c .data.result)
core=$(child_pid "$aggregator_pid" core)
kill -KILL "$core"
reborn() { [ "$(child_pid "$aggregator_pid" core)" != "$core" ] && curl -sf "$api/readyz"; }
wait_for 15 reborn
same() { [ "$(range "$api" "$total" $start $end | jq -c .data.result)" = "$before" ]; }
wait_for 10 same
ok $? 'killed, it answers as before'
tap_end
