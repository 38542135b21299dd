-- SPDX-License-Identifier: Apache-2.0
-- A gateway that is not known: TERM is what most servers take for a graceful end.
return {
	name = "other",
	stop = "TERM",
}
