/* SPDX-License-Identifier: Apache-2.0 */
/* What `tidegate top --once --json` prints; the manual says what each key means. Pure. */
#pragma once

#include "base/str.h"
#include "cmd/top_page.h"

/* All gateways with all their details, as one line of ASCII that ends in \n. What is not known has
 * no key. before and now are the samples that s->view was made from. -ENOMEM. */
int top_json(const struct top_scene *s, const struct top_sample *before,
	     const struct top_sample *now, struct strbuf *out);
