#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two agents with certificates for different ids, and a third that takes the first one's id with the
# second one's certificate: refused, counted, told once with its address, and nobody's sums change. Then
# the gate is killed (every TCP connection and TLS session stays), the door (sessions go on with
# tickets), and the door's certificate and authority change under load.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/authority.sh"
command -v hey >/dev/null || skip_all "no hey"
world_begin speak
authority_new ours
authority_new next
certificate door ours IP:127.0.0.1
certificate one ours URI:tidegate://agent/team-a
certificate two ours DNS:team-b
drain_options='  on_sigterm: never'
agent_id=team-a/1
write_config
sed -i 's|tcp://127|tls+tcp://127|' "$world/aggregator.yaml"
tls_section door >>"$world/aggregator.yaml"
sed -i "s|\"tcp://|\"tls+tcp://|; s|^uplink:|&\n  backoff: 300ms|" "$world/agent.yaml"
tls_section one >>"$world/agent.yaml"
# The others: no gateway of theirs, directories and a port of their own.
other() { # other NAME ID FOLDER
	new_port
	sed -e "s|runtime_dir: .*|runtime_dir: $run-$1|; s|id: team-a/1|id: $2|; s|:$agent_port|:$port|" \
		-e "s|dir: $world/spool|dir: $world/spool-$1|; s|$world/one/|$world/$3/|" \
		-e 's|match: .*|match: ["none=nginx:1"]|' "$world/agent.yaml" >"$world/$1.yaml"
	"$tidegate" agent --config "$world/$1.yaml" >"$world/$1.log" 2>&1 &
	other_pid=$!
	world_pids+=("$other_pid")
}
start_nginx 2 || { echo "Bail out! nginx does not start"; exit 1; }
start_aggregator; ok $? "the aggregator listens with TLS"
start_agent; ok $? "team-a/1 sees its gateway"

total=0
ask() { hey -n "$1" -c 1 "$gateway/fast" >>"$world/hey.txt" 2>&1; total=$((total + $1)); }
load() { # load N, an even number: begun, at 100 a second; $load_pid
	hey -n "$1" -c 2 -q 50 "$gateway/fast" >>"$world/hey.txt" 2>&1 &
	load_pid=$!
	total=$((total + $1))
}
arrived() { [ "$(fleet_metric tidegate_requests_total)" = "$total" ]; }
arrives() { wait_for 15 arrived; is "$(fleet_metric tidegate_requests_total)" "$total" "$1"; }
ask 211
arrives "what team-a/1 counts arrives"
agents() { curl -sf "http://127.0.0.1:$aggregator_port/api/v1/agents" | jq -r '.. | .id? // empty' | sort -u | tr '\n' ' '; }
other two team-b/1 two
two_pid=$other_pid
both() { [ "$(agents)" = "team-a/1 team-b/1 " ]; }
wait_for 15 both; is "$(agents)" "team-a/1 team-b/1 " "team-b/1 is there as well"

foreign() { fleet_metric tidegate_aggregator_refused_total 'what="foreign"'; }
is "$(foreign)" 0 "nobody spoke for another yet"
other thief team-a/1 two
refused() { [ "$(foreign)" -ge 3 ]; }
wait_for 15 refused; ok $? "who takes another's id is refused, each time"
is "$(grep -c 'speaks for an agent.*peer=127.0.0.1:[0-9]* agent="team-a/1" certificate="team-b"' "$world/aggregator.log")" 1 \
	"told once: the peer, the id, the certificate's name"
told() { grep -q 'certificate does not authorise this agent id' "$world/thief.log"; }
wait_for 5 told; ok $? "and its own log says why"
ask 223
arrives "team-a/1 is not disturbed"
is "$(agents)" "team-a/1 team-b/1 " "and nobody else appeared"
kill -TERM "$other_pid"
wait "$other_pid"

counts() { # connections accepted, TLS handshakes
	echo "$(fleet_metric tidegate_door_accepted_total) $(fleet_metric tidegate_door_handshakes_total)"
}
# Two agents; a snapshot client or a subscriber there is none.
two_clients() { [ "$(fleet_metric tidegate_door_connections 'what="client"')" = 2 ]; }
wait_for 10 two_clients; ok $? "two connections"
was=$(counts)
load 158
wait_for 5 test -n "$(child_pid "$aggregator_pid" gate)"
kill -KILL "$(child_pid "$aggregator_pid" gate)"
wait "$load_pid"
arrives "the gate is killed under load, nothing is lost or doubled"
is "$(counts)" "$was" "over the same connections and TLS sessions"

resumed() { fleet_metric tidegate_door_handshakes_total 'how="resumed"'; }
before=$(resumed)
kill -KILL "$(child_pid "$aggregator_pid" door)"
ask 227
again() { [ "$(resumed)" -ge $((before + 2)) ]; }
wait_for 15 again; ok $? "the door is killed: both sessions go on with their tickets"
arrives "and nothing is lost or doubled"

# The authority changes as operators change it: both are trusted, then certificates, then the old goes.
cat "$world/pki/ours.crt" "$world/pki/next.crt" >"$world/pki/both.crt"
loads() { [ "$(fleet_metric tidegate_door_certificate_loads_total 'state="done"')" -gt "$1" ]; }
load 202
seen=$(fleet_metric tidegate_door_certificate_loads_total 'state="done"')
certificate one ours URI:tidegate://agent/team-a 2 both
certificate door ours IP:127.0.0.1 2 both
wait_for 10 loads "$seen"; ok $? "the door takes new files"
seen=$(fleet_metric tidegate_door_certificate_loads_total 'state="done"')
certificate one next URI:tidegate://agent/team-a 2 both
certificate door next IP:127.0.0.1 2 both
wait_for 10 loads "$seen"; ok $? "and those of another authority, without a restart"
shown() { openssl s_client -connect "127.0.0.1:$door_port" -showcerts </dev/null 2>/dev/null | grep -q 'i:CN = next'; }
wait_for 5 shown; ok $? "who connects sees it"
wait "$load_pid"
arrives "no frame was lost by it"
is "$(fleet_metric tidegate_door_certificate_loads_total 'state="failed"')" 0 "nothing was half read"
# team-b/1 came in with a certificate of the old one, and is still there.
wait_for 5 two_clients; ok $? "both agents are there"
refusals=$(fleet_metric tidegate_door_refused_total 'reason="certificate"')
certificate door next IP:127.0.0.1
cut() { [ "$(fleet_metric tidegate_door_refused_total 'reason="certificate"')" -gt "$refusals" ]; }
wait_for 10 cut; ok $? "the old authority goes: who came in with it is cut off"
one_client() { [ "$(fleet_metric tidegate_door_connections 'what="client"')" = 1 ]; }
wait_for 5 one_client; ok $? "and stays out"
is "$(grep -c 'warning door refused at=requests peer=127.0.0.1:[0-9]* reason=certificate' "$world/aggregator.log")" 1 "told once"
ask 229
arrives "team-a/1 goes on"
is "$(grep -c "a process died.*process=core" "$world/aggregator.log")" 0 "the core lived through all of it"
kill -TERM "$two_pid"
wait "$two_pid"
rm -rf "$run-two" "$run-thief"
tap_end
