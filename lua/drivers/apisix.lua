-- SPDX-License-Identifier: Apache-2.0
-- APISIX runs on OpenResty.
return {
	name = "apisix",
	stop = "QUIT",
}
