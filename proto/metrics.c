/* SPDX-License-Identifier: Apache-2.0 */
/* The catalogue's descriptors. Pure. */
#include "metrics.h"

#include <string.h>

const struct metric_desc metric_descs[METRIC_ID_COUNT] = {
#define METRIC(ident, name_, kind_, unit_, merge_, scope_, labels_, help_) \
	[METRIC_ID_##ident] = {                                            \
		.name = name_,                                             \
		.unit = unit_,                                             \
		.labels = labels_,                                         \
		.help = help_,                                             \
		.kind = METRIC_##kind_,                                    \
		.merge = METRIC_##merge_,                                  \
		.scope = METRIC_##scope_,                                  \
	},
#include "metrics.def"
#undef METRIC
};

const struct metric_desc *metric_find(const char *name)
{
	for (unsigned int i = 0; i < METRIC_ID_COUNT; i++)
		if (strcmp(metric_descs[i].name, name) == 0)
			return &metric_descs[i];
	return NULL;
}
