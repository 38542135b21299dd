-- SPDX-License-Identifier: Apache-2.0
-- Kong runs on OpenResty.
return {
	name = "kong",
	stop = "QUIT",
}
