/* SPDX-License-Identifier: Apache-2.0 */
/* The table of gateway drivers. Owns nothing; steward. */
#include "drain/driver.h"

#include "base/str.h"

#include <signal.h>
#include <string.h>

#define DRIVER(name, stop, force, allowed)           \
	{                                            \
		name, SIG##stop, SIG##force, allowed \
	}

static const struct driver drivers[] = {
	DRIVER("nginx", QUIT, TERM, "QUIT TERM WINCH HUP USR1"),
	DRIVER("openresty", QUIT, TERM, "QUIT TERM WINCH HUP USR1"),
	DRIVER("kong", QUIT, TERM, "QUIT TERM WINCH HUP USR1"),
	DRIVER("apisix", QUIT, TERM, "QUIT TERM WINCH HUP USR1"),
	/* HAProxy's TERM is its hard stop; its soft stop is USR1. */
	DRIVER("haproxy", USR1, TERM, "USR1 USR2 TERM HUP"),
	/* Caddy's second TERM ends it at once and its QUIT always does: force is left to KILL. */
	DRIVER("caddy", TERM, KILL, "TERM USR1"),
	DRIVER("traefik", TERM, KILL, "TERM USR1"),
	DRIVER("apinto", TERM, KILL, "TERM"),
	DRIVER("*", TERM, KILL, "TERM QUIT INT HUP USR1"),
};

static const struct {
	const char *name;
	int number;
} signals[] = {
	{"QUIT", SIGQUIT}, {"TERM", SIGTERM}, {"INT", SIGINT},     {"HUP", SIGHUP},
	{"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"WINCH", SIGWINCH}, {"KILL", SIGKILL},
};

const struct driver *driver_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(drivers) - 1; i++)
		if (str_equal(drivers[i].name, name))
			return &drivers[i];
	return &drivers[ARRAY_LEN(drivers) - 1];
}

int driver_signal_number(const char *name)
{
	if (str_starts(name, "SIG"))
		name += 3;
	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		if (str_equal(signals[i].name, name))
			return signals[i].number;
	return 0;
}

const char *driver_signal_name(int signal)
{
	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		if (signals[i].number == signal)
			return signals[i].name;
	return "?";
}

bool driver_allows(const struct driver *d, int signal)
{
	const char *name = driver_signal_name(signal), *p = d->allowed;
	size_t len = strlen(name);

	while (p && *p) {
		size_t word = strcspn(p, " ");

		if (word == len && !strncmp(p, name, len))
			return true;
		p += word;
		p += strspn(p, " ");
	}
	return false;
}
