# SPDX-License-Identifier: Apache-2.0
# Requests by status and method, as the access logs of three gateways and as the agent have them. The logs
# are written as "STATUS METHOD PROTOCOL" by nginx and HAProxy, as JSON by caddy.
# shellcheck shell=bash disable=SC2154 # lib.sh sets world and agent_port

log_nginx() { awk '{print $1, $2}' "$world/nginx/logs/access.log"; }
log_haproxy() { awk 'NF == 3 && $2 != "<BADREQ>" {print $1, $2}' "$world/haproxy/access.log"; }
log_caddy() { jq -r '"\(.status) \(.request.method)"' "$world/caddy/access.log"; }

# Only what is logged from now on counts.
declare -A log_before
sums_begin() { # sums_begin GATEWAY...
	local each
	for each; do log_before[$each]=$("log_$each" | wc -l); done
}
log_sums() { "log_$1" | tail -n +$((log_before[$1] + 1)) | sort | uniq -c | awk '{print $2, $3, $1}' | sort; }
agent_sums() {
	curl -sf "http://127.0.0.1:$agent_port/metrics" | sed -n "/^tidegate_requests_total.*gateway=\"$1\"/{
		s/.*method=\"\([A-Z]*\)\",code=\"\([0-9]*\)\".* \([0-9]*\)\$/\2 \1 \3/p}" | sort
}
agrees() { [ -n "$(agent_sums "$1")" ] && [ "$(agent_sums "$1")" = "$(log_sums "$1")" ]; }
