-- SPDX-License-Identifier: Apache-2.0
-- Apinto: TERM.
return {
	name = "apinto",
	stop = "TERM",
}
