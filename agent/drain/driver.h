/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How each kind of gateway is told to stop. Pure. The steward alone decides by this table which
 * signals may reach a gateway; what a Lua driver says is only a wish.
 */
#pragma once

#include <stdbool.h>

struct driver {
	const char *name;
	int stop;            /* finishes what is in flight, takes nothing new */
	int force;           /* ends at once */
	const char *allowed; /* signals that a hook may send: "QUIT TERM" */
};

/* The row of a driver, or the row "*" for one that is not known. Never NULL. */
const struct driver *driver_find(const char *name);

/* "QUIT" or "SIGQUIT" to its number; 0 for what is none that a driver uses. */
int driver_signal_number(const char *name);
/* "QUIT"; "?" for others. */
const char *driver_signal_name(int signal);

bool driver_allows(const struct driver *d, int signal);
