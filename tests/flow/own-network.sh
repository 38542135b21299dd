# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The whole test in a network, and with a hosts file, of its own: addresses that are not loopback, a
# name, a firewall, and nobody outside is disturbed.
if [ -z "${TIDEGATE_OWN_NETWORK:-}" ]; then
	for tool in unshare ip iptables openssl hey; do
		command -v $tool >/dev/null || { echo "1..0 # SKIP no $tool"; exit 0; }
	done
	unshare -n -m true 2>/dev/null || { echo "1..0 # SKIP no namespaces may be made"; exit 0; }
	TIDEGATE_OWN_NETWORK=1 exec unshare -n -m "$0"
fi
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$(dirname "${BASH_SOURCE[0]}")/authority.sh"

far=10.77.0.1

# far_world NAME: an aggregator at $far and an agent that knows it as door.test, which has an address
# more, where nobody is. Their certificates are in the folders door and agent.
far_world() {
	ip link set lo up && ip addr add $far/32 dev lo && ip addr add 10.77.0.9/32 dev lo ||
		skip_all "no addresses of its own"
	iptables -L -n >/dev/null 2>&1 || skip_all "no iptables in a network namespace"
	drain_options='  on_sigterm: never'
	world_begin "$1"
	printf '127.0.0.1 localhost\n10.77.0.9 door.test\n%s door.test\n' $far >"$world/hosts"
	: >"$world/resolv.conf"
	mount --bind "$world/hosts" /etc/hosts && mount --bind "$world/resolv.conf" /etc/resolv.conf ||
		skip_all "no hosts file of its own"
	authority_new ours && authority_new theirs || { echo "Bail out! no certificates"; exit 1; }
	drain_options='  on_sigterm: never'
	write_config
	sed -i "s|tcp://127.0.0.1:$door_port|tls+tcp://door.test:$door_port|; s|^uplink:|&\n  backoff: 500ms|" \
		"$world/agent.yaml"
	sed -i "s|tcp://127.0.0.1|tls+tcp://$far|" "$world/aggregator.yaml"
	tls_section agent >>"$world/agent.yaml"
	tls_section door >>"$world/aggregator.yaml"
	total=0
}

says() { grep -q -- "$1" "$world/agent.log"; }
ask() { # ask N: so many requests, one after the other
	hey -n "$1" -c 1 "$gateway/fast" >>"$world/hey.txt" 2>&1
	total=$((total + $1))
}
arrived() { [ "$(fleet_metric tidegate_requests_total)" = $total ]; }
arrives() { # arrives NAME: all that was asked, no more
	wait_for 15 arrived
	is "$(fleet_metric tidegate_requests_total)" $total "$1"
}
lines() { agent_metric tidegate_uplink_connections_total "state=\"$1\""; }
loads() { agent_metric tidegate_uplink_certificate_loads_total "state=\"$1\""; }
lost_count() { grep -c 'aggregator is.* away' "$world/agent.log"; }
lost_since() { [ "$(lost_count)" -gt "$1" ]; }
