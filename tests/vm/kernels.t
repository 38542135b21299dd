#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Debian's 6.1 and 6.12 kernels: every program of every tier loads there, and a known workload is
# counted exactly, with fentry too.
here=$(cd "$(dirname "$0")" && pwd)
BUILD=${BUILD:-$(cd "$here/../.." && pwd)/build}
export BUILD
command -v qemu-system-x86_64 >/dev/null || { echo "1..0 # SKIP qemu-system-x86 is not installed"; exit 0; }
count=0 failed=0
ok() {
	count=$((count + 1))
	if [ "$1" = 0 ]; then echo "ok $count - $2"; else
		echo "not ok $count - $2"
		failed=$((failed + 1))
	fi
}
for meta in linux-image-cloud-amd64 linux-image-6.12-cloud-amd64; do
	log=$BUILD/vm/$meta.log
	mkdir -p "$BUILD/vm"
	"$here/boot" --with "$BUILD/tests/bpf/workload" "$meta" "/bin/uname -r" "$BUILD/tests/bpf/count.t" \
		"$BUILD/tests/bpf/http2.t all 41" \
		"$BUILD/tests/bpf/upstream.t" \
		"$BUILD/tests/bpf/records.t" \
		"$BUILD/tidegate doctor --json" >"$log" 2>&1
	kernel=$(grep -aEm1 '^6\.[0-9]+\.' "$log" | tr -d '\r')
	[ -n "$kernel" ]; ok $? "$meta boots: ${kernel:-no}"
	grep -aq '^VM-END .*/count.t 0' "$log"; ok $? "$kernel: the counts are exact in every tier"
	grep -aq '^VM-END .*/http2.t 0' "$log"; ok $? "$kernel: those of HTTP/2 too"
	grep -aq '^VM-END .*/upstream.t 0' "$log"; ok $? "$kernel: and those of upstreams"
	grep -aq '^VM-END .*/records.t 0' "$log"; ok $? "$kernel: records of slow requests say what they were"
	bad=$(grep -a '^not ok' "$log" | head -5)
	[ -z "$bad" ]; ok $? "$kernel: no test in the machine failed"
	[ -z "$bad" ] || echo "# $bad"
	grep -a '^ok.*fentry' "$log" | grep -avq SKIP; ok $? "$kernel: fentry is among them"
	grep -aq '"how": "fentry"' "$log"; ok $? "$kernel: doctor chooses fentry"
done
echo "1..$count"
[ $failed = 0 ]
