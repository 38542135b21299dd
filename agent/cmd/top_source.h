/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at host.seg and app.seg for `tidegate top`: the newest two ticks that were seen, so that there
 * are rates. Reads the files only; needs nothing from the agent.
 */
#pragma once

#include "base/err.h"
#include "cmd/top_model.h"

struct top_source;

/* segment: one file, without gateway scripts' metrics; NULL: the files of dir. -ENOENT when there is
 * no host.seg, -EBADMSG when it is none; e says it in one line. */
int top_source_open(const char *dir, const char *segment, struct top_source **ret, struct err *e);
struct top_source *top_source_close(struct top_source *s);

/* Takes a newer tick if there is one: 1 then, else 0. An app.seg that cannot be read is as if there
 * were none. A negative errno when host.seg cannot be read (now); what was seen before stays. */
int top_source_follow(struct top_source *s, struct err *e);

/* The two looks; before->host.life is 0 after the first. Borrowed until the next follow. */
const struct top_sample *top_source_now(const struct top_source *s);
const struct top_sample *top_source_before(const struct top_source *s);

/* Of the newest look, but as for the heartbeat: of this moment. */
const struct segment_header *top_source_header(const struct top_source *s);
