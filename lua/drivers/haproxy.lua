-- SPDX-License-Identifier: Apache-2.0
-- HAProxy: USR1 is the soft stop; TERM ends it at once.
return {
	name = "haproxy",
	stop = "USR1",
}
