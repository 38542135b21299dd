-- SPDX-License-Identifier: Apache-2.0
-- Caddy: TERM finishes what is in flight; QUIT ends it at once.
return {
	name = "caddy",
	stop = "TERM",
}
