#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The oracle test of the bus, its short form: tests/chaos/bus.t says what happens and what must hold.
CHAOS_KILLS=40 CHAOS_WORLDS=1 exec perl "$(dirname "$0")/../chaos/bus.t"
