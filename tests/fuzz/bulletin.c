/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a message of the bus, as `tidegate tail` takes it: decoded within its budget, thinned by
 * a filter, followed, printed both ways; no control byte of it may reach the terminal. With byte 0 odd
 * they are what a subscriber asks of the snapshots: whatever it is, there is an answer that can be read.
 */
#include "bus/bulletin.h"

#include "base/clock.h"
#include "bus/filter.h"
#include "bus/subject.h"
#include "cmd/core.h"
#include "cmd/tail_print.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct arena arena;
static struct core core;
static struct config config;
static struct filter filter;
static FILE *out;
static char *text;
static size_t text_size;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz bulletin: %s\n", what);
	abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct fleet_limits limits = {.agents = 4, .agent_series = 64, .series = 64};
	Tidegate__BusBody body;
	const uint8_t *m;
	size_t size;

	(void)argc;
	(void)argv;
	core.config = &config;
	config.fleet_stale = NS_PER_S;
	tidegate__bus_body__init(&body);
	must(arena_init(&arena, BULLETIN_ARENA_BYTES) == 0, "no memory");
	must(fleet_new(&limits, &core.fleet) == 0 && publisher_new(7, &core.publisher) == 0,
	     "no memory");
	must(publisher_message(core.publisher, "metrics/nginx/a", &body, &m, &size) == 0,
	     "no message");
	filter_add_gateway(&filter, "nginx");
	filter_add_metric(&filter, "tidegate_*");
	return 0;
}

static void is_clean(void)
{
	fflush(out);
	for (size_t i = 0; i < text_size; i++)
		must((unsigned char)text[i] >= 0x20 || text[i] == '\n',
		     "a control byte is printed");
}

static void show(const struct bulletin *b)
{
	struct subscriber subscriber;
	struct subscriber_note note;
	struct bulletin thin = *b;
	char gateway[SUBJECT_MAX + 1], agent[SUBJECT_MAX + 1], again[SUBJECT_MAX + 1];
	Tidegate__BusBody body;

	subscriber_init(&subscriber, 1);
	subscriber_message(&subscriber, b->topic, b->epoch, b->sequence, &note);
	for (size_t i = 0; i < b->body->n_topics; i++)
		subscriber_listed(&subscriber, b->body->topics[i]->topic,
				  b->body->topics[i]->sequence, &note);
	subscriber_fini(&subscriber);
	if (subject_read_metrics(b->topic, gateway, agent) && strlen(gateway) < SUBJECT_GATEWAY)
		must(subject_metrics(gateway, agent, again) >= 0 && strlen(again) <= SUBJECT_MAX,
		     "a topic that is read cannot be built");
	out = open_memstream(&text, &text_size);
	must(out != NULL, "no memory");
	tail_print_bulletin(out, b, false, true);
	tail_print_bulletin(out, b, true, false);
	tail_print_note(out, b->topic, &note, true);
	tail_print_note(out, b->topic, &note, false);
	if (filter_topic(&filter, b->topic) && filter_body(&filter, b->body, &arena, &body) == 0) {
		must(body.n_series <= b->body->n_series && !body.n_events, "a filter adds");
		thin.body = &body;
		tail_print_bulletin(out, &thin, false, true);
	}
	is_clean();
	fclose(out);
	free(text);
}

static void ask(const uint8_t *request, size_t size)
{
	const uint8_t *message;
	struct bulletin b;
	size_t n;

	must(core_snapshot_answer(&core, request, size, &message, &n) == 0, "no answer");
	must(bulletin_decode(message, n, &arena, &b) == 0, "the answer cannot be read");
	must(strcmp(b.topic, "snapshot") == 0 && b.epoch == 7 && b.sequence == 0,
	     "it is no snapshot");
	must(b.body->n_topics || b.body->n_series || *b.body->why || !size ||
		     memchr(request, '/', size) || !*request,
	     "it does not say why there is none");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bulletin b;

	if (size && data[0] & 1)
		ask(data + 1, size - 1);
	else if (size && bulletin_decode(data + 1, size - 1, &arena, &b) == 0)
		show(&b);
	return 0;
}
