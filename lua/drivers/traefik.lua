-- SPDX-License-Identifier: Apache-2.0
-- Traefik: TERM finishes what is in flight within its own grace period.
return {
	name = "traefik",
	stop = "TERM",
}
