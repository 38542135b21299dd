# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# One talk.pl for a test: talk VERB NAME [REST] sets $said to what it answers; fails when that fails.
# Source it after lib.sh.

coproc TALK { exec perl "$(dirname "$0")/talk.pl"; }
world_pids+=("$TALK_PID")

talk() {
	# shellcheck disable=SC2034 # for tests
	printf '%s\n' "$*" >&"${TALK[1]}" && read -r said <&"${TALK[0]}" && [ "${said#failed}" = "$said" ]
}
