-- SPDX-License-Identifier: Apache-2.0
-- The shipped drain: wait until nobody sends any more, tell the gateway to quit, wait for what is
-- in flight. A file of this name in drain.hooks_dir takes its place; what it leaves out is done by
-- the built-in drain.

tidegate.hook({
	name = "wait-until-quiet",
	point = "drain.quiet",
	run = function()
		-- Without a number: the configured quiet period.
		tidegate.wait_quiet()
	end,
})

tidegate.hook({
	name = "tell-to-stop",
	point = "drain.stop",
	run = function(ctx)
		tidegate.stop(ctx)
	end,
})

tidegate.hook({
	name = "wait-for-requests",
	point = "drain.wait",
	run = function()
		tidegate.wait_in_flight(0)
	end,
})
