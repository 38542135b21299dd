#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What packaging/examples/certificates makes is what an aggregator and its clients take, also when it
# is made again under them.
source "$(dirname "$0")/lib.sh"
make=$top/packaging/examples/certificates/make-certificates
world_begin example
pki=$world/pki
"$make" "$pki" door door DNS:door.test 2>"$world/err"
[ $? = 1 ] && grep -q "begin with: .* authority" "$world/err"; ok $? "without an authority it says how to begin"
"$make" "$pki" authority >"$world/out" && "$make" "$pki" door door IP:127.0.0.1 >>"$world/out" &&
	"$make" "$pki" agent shop shop/ >>"$world/out" && "$make" "$pki" agent ops ops >>"$world/out" &&
	"$make" "$pki" upper east IP:127.0.0.1 aggregator/east >>"$world/out"
ok $? "an authority and four certificates"
! "$make" "$pki" authority >>"$world/out" 2>&1; ok $? "an authority is never replaced by accident"
chmod -R go+rX "$pki"
sed -i "s|tcp://127|tls+tcp://127|; s|^door:|&\n  subscribers_san: [\"ops\"]|" "$world/aggregator.yaml"
printf 'tls:\n  ca_file: %s/ca.pem\n  cert_file: %s/cert.pem\n  key_file: %s/key.pem\n' \
	"$pki/door" "$pki/door" "$pki/door" >>"$world/aggregator.yaml"
start_aggregator; ok $? "the aggregator takes its own"
# hears FOLDER: a beacon, at the bus, from a door that shows a good certificate.
hears() {
	local in=$world/in.$1 out=$world/hears.$1 fd pid r
	rm -f "$in" "$out"
	mkfifo "$in"
	exec {fd}<>"$in"
	printf '\0SP\0\0\x21\0\0' >&"$fd"
	openssl s_client -connect "127.0.0.1:$bus_port" -quiet -verify_return_error -verify_ip 127.0.0.1 \
		-CAfile "$pki/$1/ca.pem" -cert "$pki/$1/cert.pem" -key "$pki/$1/key.pem" \
		<"$in" >"$out" 2>"$out.err" &
	pid=$!
	heard() { grep -qa beacon "$out"; }
	over() { heard || gone "$pid"; }
	wait_for 10 over
	heard
	r=$?
	kill "$pid" 2>/dev/null
	exec {fd}>&-
	return $r
}
hears ops; ok $? "ops hears the beacon"
! hears shop; ok $? "shop may not subscribe"
is "$(fleet_metric tidegate_door_refused_total 'reason="certificate"')" 1 "which is counted"
loaded() { [ "$(fleet_metric tidegate_door_certificate_loads_total 'state="done"')" -ge 2 ]; }
"$make" "$pki" door door IP:127.0.0.1 >>"$world/out" && chmod -R go+rX "$pki"
# The link may have been seen before the modes were: then it is tried again.
touch "$pki"/door/..data/cert.pem
wait_for 10 loaded; ok $? "a new one is taken without a restart"
hears ops; ok $? "and good"
"$make" "$pki" agent .. shop 2>/dev/null; is $? 2 "a name is no path"
tap_end
