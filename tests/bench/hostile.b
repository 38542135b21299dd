#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What one hostile host costs each process of the aggregator, beyond what an honest agent does: all that
# tests/chaos/forge makes, over TLS with a right certificate, again and again, each on a connection of
# its own; then 400 silent connections that are begun again whenever they are cut off.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/../flow/uppers.sh"
source "$(dirname "$0")/../flow/authority.sh"

seconds=8
forge=$BUILD/tests/chaos/forge
world_begin bench-hostile
mkdir -p "$run"
chmod 755 "$run"
authority_new ours || exit 1
certificate door ours IP:127.0.0.1
certificate honest ours URI:tidegate://agent/honest
certificate mallory ours URI:tidegate://agent/mallory
aggregator_write all
sed -i "s|tcp://127.0.0.1:${door_of[all]}|tls+tcp://127.0.0.1:${door_of[all]}|" "$world/all.yaml"
tls_section door >>"$world/all.yaml"
agent_write honest '' "tls+tcp://127.0.0.1:${door_of[all]}"
tls_section honest >>"$world/honest.yaml"
aggregator_begin all
wait_for 20 aggregator_is_ready all || exit 1
agent_begin honest && feed_begin honest || exit 1

kinds='truncated flipped bomb future version many junk name honest session replayed'
for kind in $kinds; do "$forge" "$kind" mallory >"$world/$kind.forged" || exit 1; done

nothing() { pause "$seconds"; }
attacks=0
attack() {
	local end=$((SECONDS + seconds)) kind
	while [ $SECONDS -lt $end ]; do
		for kind in $kinds; do
			timeout 5 openssl s_client -connect "127.0.0.1:${door_of[all]}" -quiet -no_ign_eof \
				-CAfile "$world/mallory/ca.pem" -cert "$world/mallory/cert.pem" \
				-key "$world/mallory/key.pem" <"$world/$kind.forged" >"$world/answer" 2>&1
			attacks=$((attacks + 1))
		done
	done
}
flood() {
	timeout "$seconds" perl -MIO::Socket::INET -MIO::Select -e '
		my $held = IO::Select->new;
		while (1) {
			$held->add(IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ARGV[0]") // next) while $held->count < 400;
			for my $cut ($held->can_read(0.1)) {
				$held->remove($cut);
				close $cut;
			}
		}' "${door_of[all]}"
}
declare -A pids
for process in door gate core; do pids[$process]=$(child_pid "${pid_of[all]}" $process); done
# measure COMMAND: cores of each process while it runs, into $cores.
declare -A cores
measure() {
	local -A before
	local process began
	for process in door gate core; do before[$process]=$(cpu_ns "${pids[$process]}"); done
	began=$(date +%s%N)
	"$1"
	for process in door gate core; do
		cores[$process]=$(ratio $(($(cpu_ns "${pids[$process]}") - before[$process])) $(($(date +%s%N) - began)))
	done
}
beyond() { awk -v a="$1" -v b="$2" 'BEGIN {d = a - b; printf "%.4g", (d > 0 ? d : 0)}'; }

measure nothing
declare -A calm
for process in door gate core; do calm[$process]=${cores[$process]}; done
measure attack
refused=$(sum_metric "$(curl -sf "http://127.0.0.1:${api_of[all]}/metrics")" tidegate_aggregator_frames_total \
	'state="(damaged|refused)"')
echo "# $attacks attacks in $seconds s and more, $refused frames refused, beside an honest agent"
for process in door gate core; do
	row "hostile_attacks_${process}_cpu" "$(beyond "${cores[$process]}" "${calm[$process]}")" cores "" "" 0.05
done
measure flood
for process in door gate core; do
	row "hostile_silence_${process}_cpu" "$(beyond "${cores[$process]}" "${calm[$process]}")" cores "" "" 0.05
done
feed_end honest
wait_for 30 is_told all '' honest || row hostile_honest_agent_differs 1 agents "" "" 0
world_end
