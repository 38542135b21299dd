#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Debian's kernel 6.12: the suite of the probes, with fentry too, and in a pid namespace.
source "$(dirname "$0")/suite.sh"
command -v qemu-system-x86_64 >/dev/null || { echo "1..0 # SKIP qemu-system-x86 is not installed"; exit 0; }
suite linux-image-6.12-cloud-amd64 "$@"
