-- SPDX-License-Identifier: Apache-2.0
-- nginx: QUIT closes the listeners and finishes what is in flight; TERM resets it.
return {
	name = "nginx",
	stop = "QUIT",
}
