#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
source "$(dirname "$0")/kill.sh"
world_begin keeper
kill_test agent_pid keeper keeper
tap_end
