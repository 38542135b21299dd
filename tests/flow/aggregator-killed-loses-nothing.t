#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
source "$(dirname "$0")/kill.sh"
world_begin aggregator
kill_test aggregator_pid core gate door core
tap_end
