-- SPDX-License-Identifier: Apache-2.0
-- OpenResty is nginx.
return {
	name = "openresty",
	stop = "QUIT",
}
