-- SPDX-License-Identifier: Apache-2.0
-- The hook library: what is built from the functions that the host gives to every hook. Loaded
-- once, before all hook files, into their shared globals. See lua/README.md.

local library = tidegate

-- The driver of a gateway: how it is told to stop. An unknown one gets the common signals.
function library.driver(name)
	local known, driver = pcall(require, "drivers." .. name)
	if known then
		return driver
	end
	return require("drivers.other")
end

-- Tells the gateway to finish what it has and to take nothing new. Raises when it cannot.
function library.stop(ctx)
	local driver = library.driver(ctx.driver)
	local sent, why = tidegate.signal(driver.stop)
	if not sent then
		error("signal " .. driver.stop .. ": " .. why, 2)
	end
	return true
end

-- Calls try() until it returns something true, at most `times` times, `pause` seconds apart.
function library.retry(times, pause, try)
	local why
	for n = 1, times do
		local ok, result, reason = pcall(try, n)
		if ok and result then
			return result
		end
		why = ok and reason or result
		if n < times then
			tidegate.sleep(pause)
		end
	end
	return nil, why
end

-- Runs a program of the allow-list; raises when it does not end with status 0.
function library.run(argv, timeout)
	local status, output = tidegate.exec(argv, timeout)
	if status ~= 0 then
		error(argv[1] .. ": " .. (status and "status " .. status .. ": " or "") .. output, 2)
	end
	return output
end
