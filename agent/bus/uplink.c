/* SPDX-License-Identifier: Apache-2.0 */
/* Uplink: sessions, window, retries; speaks SP as a raw REQ socket does. Loop thread. */
#include "bus/uplink.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "bus/dialer.h"
#include "bus/frame.h"
#include "bus/frame_budget.h"
#include "bus/uplink_missing.h"
#include "bus/uplink_request.h"
#include "bus/uplink_sessions.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define UPLINK_MAGIC            0x55504c4bu
#define UPLINK_WINDOW_MAX       16u
#define UPLINK_REPLY_BUDGET     (1u << 20)
#define UPLINK_BACKOFF_LEAST_NS (100 * NS_PER_MS)
#define UPLINK_UNKNOWN_ROUNDS   3u
#define UPLINK_PATIENCE         8u          /* times the timeout */
#define UPLINK_QUEUE_BYTES      (2u << 20)  /* one message beyond half of it still fits */
#define REQUEST_ID_FLAG         0x80000000u /* marks the end of an SP backtrace */

struct uplink {
	uint32_t magic;
	struct loop *loop;
	struct spool *spool;
	struct spool_cursor *cursor;
	struct uplink_events events;
	char *address, *agent;
	char *labels[16];
	size_t label_strings;
	bool is_sum;
	uint64_t backoff_ns, backoff_now_ns;
	uint64_t timeout_ns, timeout_now_ns; /* now: grows with timeouts, falls with replies */
	unsigned int window;
	struct dialer *dialer;
	struct loop_watch *timer;
	struct uplink_request requests[UPLINK_WINDOW_MAX];
	struct uplink_sessions sessions;
	uint32_t next_id;
	uint64_t random;
	bool is_waiting;   /* for the end of a backoff */
	bool is_proven;    /* a reply came since the last trouble: the whole window may be used */
	bool is_live_next; /* whose turn it is */
	bool is_simple;    /* it has not got the dictionary of our frames */
	bool has_missing;  /* frames wait for a key frame with this sequence or a higher one */
	uint64_t key_sequence;
	unsigned int closed_rounds; /* of frames that neither side can open, in this session */
	struct uplink_missing missing;
	unsigned int reasons; /* told since it was lost, beyond the first */
	char why[160];        /* the last one told */
	struct uplink_stats stats;
};

static void pump(struct uplink *u);

static uint64_t random_next(struct uplink *u)
{
	u->random ^= u->random << 13;
	u->random ^= u->random >> 7;
	u->random ^= u->random << 17;
	return u->random;
}

/* -------- what a request is built from -------- */

static uint32_t session_of(void *data, const uint8_t *incarnation)
{
	const struct uplink *u = data;

	return uplink_sessions_get(&u->sessions, incarnation);
}

static int hello_of(void *data, const uint8_t *incarnation, uint8_t *buf, size_t size)
{
	struct uplink *u = data;
	static char software[] = "tidegate " TIDEGATE_VERSION;
	uint8_t copy[FRAME_INCARNATION_BYTES];
	Tidegate__Hello hello;

	memcpy(copy, incarnation, sizeof(copy));
	tidegate__hello__init(&hello);
	hello.version = FRAME_VERSION;
	hello.agent = u->agent;
	hello.incarnation = (ProtobufCBinaryData){.len = sizeof(copy), .data = copy};
	hello.labels = u->labels;
	hello.n_labels = u->label_strings;
	hello.software = software;
	hello.sums = u->is_sum;
	if (tidegate__hello__get_packed_size(&hello) > size)
		return -E2BIG;
	return (int)tidegate__hello__pack(&hello, buf);
}

/* -------- requests -------- */

static unsigned int in_flight(const struct uplink *u)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < u->window; i++)
		n += u->requests[i].id != 0;
	return n;
}

static void request_end(struct uplink_request *q)
{
	q->id = 0;
	free(q->message);
	q->message = NULL;
	q->cap = q->size = 0;
}

static void begin_anew(struct uplink *u)
{
	for (unsigned int i = 0; i < u->window; i++)
		request_end(&u->requests[i]);
	spool_cursor_rewind(u->cursor);
}

static void timer_set(struct uplink *u, uint64_t ns)
{
	loop_set_timer(u->timer, ns / NS_PER_MS + 1, 0);
}

/* Something went wrong: forget what is in flight, it is sent again. */
static void lost(struct uplink *u, const char *why)
{
	if (!u->stats.is_lost || (!str_equal(why, u->why) && u->reasons < UPLINK_REASONS)) {
		void (*tell)(void *, const char *, const char *) =
			u->stats.is_lost ? u->events.on_still_lost : u->events.on_lost;

		u->reasons = u->stats.is_lost ? u->reasons + 1 : 0;
		u->stats.is_lost = true;
		str_copy(u->why, sizeof(u->why), why);
		if (tell)
			tell(u->events.data, u->address, why);
	}
	begin_anew(u);
	u->is_proven = false;
}

/* The same, but the connection is good: wait before it is sent again. */
static void trouble(struct uplink *u, const char *why, uint64_t least_ns)
{
	uint64_t wait;

	lost(u, why);
	u->backoff_now_ns =
		u->backoff_now_ns * 2 > u->backoff_ns ? u->backoff_ns : u->backoff_now_ns * 2;
	if (u->backoff_now_ns < least_ns)
		u->backoff_now_ns = least_ns;
	wait = u->backoff_now_ns / 2 + random_next(u) % (u->backoff_now_ns / 2 + 1);
	u->is_waiting = true;
	timer_set(u, wait);
}

static int request_send(struct uplink *u, struct uplink_request *q)
{
	uint8_t id[4];
	int r;

	u->next_id = (u->next_id + 1) | REQUEST_ID_FLAG;
	sp_put32(id, u->next_id);
	r = dialer_send(u->dialer, id, sizeof(id), q->message, q->size, &q->number);
	if (r < 0)
		return r;
	q->id = u->next_id;
	q->is_gone = dialer_sent(u->dialer) >= q->number;
	q->progress = dialer_progress(u->dialer);
	q->deadline_ns = clock_mono_ns() + u->timeout_now_ns;
	u->stats.messages++;
	u->stats.payload_bytes += q->size;
	u->stats.frames_sent += q->frame_count;
	free(q->message);
	q->message = NULL;
	q->cap = q->size = 0;
	return 0;
}

/* A line may be slow: who is still being sent has time for as long as bytes move. */
static bool is_overdue(struct uplink *u, struct uplink_request *q, uint64_t now)
{
	uint64_t progress = dialer_progress(u->dialer);

	if (!q->id || q->deadline_ns > now)
		return false;
	if (q->is_gone || (q->progress == progress && dialer_sent(u->dialer) < q->number))
		return true;
	q->is_gone = dialer_sent(u->dialer) >= q->number;
	q->progress = progress;
	q->deadline_ns = now + u->timeout_now_ns;
	return false;
}

/* A new session is asked for by one request alone, and after trouble one goes ahead. */
static unsigned int window_now(const struct uplink *u)
{
	for (unsigned int i = 0; i < u->window; i++)
		if (u->requests[i].id && u->requests[i].has_hello)
			return 0;
	return u->is_proven ? u->window : 1;
}

static void deadline_set(struct uplink *u)
{
	uint64_t next = UINT64_MAX, now = clock_mono_ns();

	for (unsigned int i = 0; i < u->window; i++)
		if (u->requests[i].id && u->requests[i].deadline_ns < next)
			next = u->requests[i].deadline_ns;
	if (next != UINT64_MAX)
		timer_set(u, next > now ? next - now : 0);
}

static void pump(struct uplink *u)
{
	while (!u->is_waiting && dialer_has_room(u->dialer) && in_flight(u) < window_now(u)) {
		struct uplink_request *q = u->requests;
		enum spool_end end = u->is_live_next ? SPOOL_LIVE : SPOOL_OLD;
		int r;

		while (q->id)
			q++;
		u->is_live_next = !u->is_live_next;
		q->is_simple = u->is_simple;
		r = uplink_request_fill(q, u->cursor, end, session_of, hello_of, u);
		if (r == 0)
			r = uplink_request_fill(q, u->cursor,
						end == SPOOL_OLD ? SPOOL_LIVE : SPOOL_OLD,
						session_of, hello_of, u);
		if (r == 0)
			break;
		if (r > 0)
			r = request_send(u, q);
		if (r < 0) {
			trouble(u, err_text(r), UPLINK_BACKOFF_LEAST_NS);
			return;
		}
	}
	if (!u->is_waiting)
		deadline_set(u);
}

static void on_timer(void *data)
{
	struct uplink *u = data;
	uint64_t now = clock_mono_ns();

	CHECK(u->magic == UPLINK_MAGIC);
	u->is_waiting = false;
	for (unsigned int i = 0; i < u->window; i++) {
		if (!is_overdue(u, &u->requests[i], now))
			continue;
		/* It may be half open. */
		u->stats.timeouts++;
		/* Or so slow that what the kernel took ahead is longer on its way. */
		if (u->timeout_now_ns < UPLINK_PATIENCE * u->timeout_ns)
			u->timeout_now_ns *= 2;
		lost(u, u->requests[i].is_gone ? "no reply in time" : "nothing can be sent");
		dialer_again(u->dialer);
		return;
	}
	pump(u);
}

/* -------- replies -------- */

static void settle(struct uplink *u, struct uplink_request *q, const uint64_t *sequences, size_t n,
		   enum spool_fate fate)
{
	for (size_t i = 0; i < n; i++) {
		struct uplink_frame *f = uplink_request_find(q, sequences[i]);

		if (!f || f->is_settled)
			continue; /* only what this request carried can be acknowledged by it */
		f->is_settled = true;
		spool_cursor_settle(u->cursor, q->incarnation, f->sequence, f->size, fate);
		if (fate != SPOOL_ACKNOWLEDGED)
			continue;
		u->stats.frames_acknowledged++;
		uplink_missing_taken(&u->missing, q->incarnation, f->sequence);
	}
}

static bool is_current(const struct uplink *u, const uint8_t *incarnation)
{
	return memcmp(spool_incarnation(u->spool), incarnation, FRAME_INCARNATION_BYTES) == 0;
}

/* Frames that name series unknown there: they come again once a key frame was taken; after some
 * rounds nobody can know these series any more. */
static void take_missing(struct uplink *u, struct uplink_request *q, const uint64_t *missing,
			 size_t n)
{
	if (!n)
		return;
	if (u->has_missing) {
		uplink_missing_widen(&u->missing, q->incarnation, missing, n);
		return;
	}
	if (uplink_missing_note(&u->missing, q->incarnation, missing, n) > UPLINK_UNKNOWN_ROUNDS) {
		for (size_t i = 0; i < n; i++)
			if (uplink_missing_covers(&u->missing, q->incarnation, missing[i]))
				settle(u, q, &missing[i], 1, SPOOL_UNKNOWN);
		uplink_missing_forget(&u->missing, q->incarnation);
		if (!uplink_request_is_open(q))
			return; /* others have their first round */
	}
	u->has_missing = true;
	/* The key frame of an older incarnation can only be among those that are there. */
	u->key_sequence = is_current(u, q->incarnation) ? spool_next_sequence(u->spool) : 0;
	if (u->key_sequence && u->events.on_need_key)
		u->events.on_need_key(u->events.data, u->address);
}

static bool is_drained(const struct uplink *u)
{
	struct spool_record record;

	return in_flight(u) == 0 && !spool_cursor_peek(u->cursor, SPOOL_OLD, &record) &&
	       !spool_cursor_peek(u->cursor, SPOOL_LIVE, &record);
}

/* After every reply: is it time to send the missing again? */
static void check_missing(struct uplink *u, const struct uplink_request *q)
{
	if (!u->has_missing)
		return;
	if (u->key_sequence ? is_current(u, q->incarnation) &&
				      uplink_request_settled_from(q, u->key_sequence)
			    : is_drained(u)) {
		u->has_missing = false;
		begin_anew(u);
	}
}

/* Packed with a dictionary that is neither there nor here: after some rounds they are given up. */
static void take_closed(struct uplink *u, struct uplink_request *q, uint32_t dictionary)
{
	bool is_over = u->closed_rounds >= UPLINK_UNKNOWN_ROUNDS, is_any = false;

	for (unsigned int i = 0; i < q->frame_count; i++) {
		if (q->frames[i].is_settled || q->frames[i].closed != dictionary)
			continue;
		is_any = true;
		if (is_over)
			settle(u, q, &q->frames[i].sequence, 1, SPOOL_UNKNOWN);
	}
	if (is_any && !is_over)
		u->closed_rounds++;
}

static void take_ok(struct uplink *u, struct uplink_request *q, const Tidegate__UplinkReply *m)
{
	if (m->session)
		uplink_sessions_set(&u->sessions, q->incarnation, m->session);
	settle(u, q, m->acknowledged, m->n_acknowledged, SPOOL_ACKNOWLEDGED);
	settle(u, q, m->refused, m->n_refused, SPOOL_REFUSED);
	take_missing(u, q, m->missing, m->n_missing);
	if (m->dictionary && q->is_simple)
		take_closed(u, q, m->dictionary);
	u->is_proven = true;
	u->timeout_now_ns -= (u->timeout_now_ns - u->timeout_ns) / 8;
	dialer_prove(u->dialer);
	if (uplink_request_is_open(q) && !u->has_missing)
		return;
	u->backoff_now_ns = UPLINK_BACKOFF_LEAST_NS;
	if (u->stats.is_lost) {
		uint64_t frames;

		u->stats.is_lost = false;
		spool_cursor_pending(u->cursor, &frames);
		if (u->events.on_returned)
			u->events.on_returned(u->events.data, u->address, frames);
	}
}

static void take_reply(struct uplink *u, struct uplink_request *q, const Tidegate__UplinkReply *m)
{
	bool had_hello = q->has_hello;

	switch (m->status) {
	case TIDEGATE__UPLINK_REPLY__STATUS__OK:
	case TIDEGATE__UPLINK_REPLY__STATUS__NEED_KEY:
		/* It may have been upgraded in between: each session asks anew. */
		if (had_hello)
			u->closed_rounds = 0;
		take_ok(u, q, m);
		if (had_hello)
			u->is_simple = false;
		if (m->dictionary && !q->is_simple) {
			if (!u->is_simple && u->events.on_refused)
				u->events.on_refused(u->events.data, u->address, m->why);
			u->is_simple = true;
			begin_anew(u);
			return;
		}
		request_end(q);
		if (uplink_request_is_open(q) && !u->has_missing)
			trouble(u, "a reply left frames open", UPLINK_BACKOFF_LEAST_NS);
		else
			check_missing(u, q);
		return;
	case TIDEGATE__UPLINK_REPLY__STATUS__NEED_HELLO:
		uplink_sessions_set(&u->sessions, q->incarnation, 0);
		if (had_hello)
			trouble(u, "it wants a hello after a hello", UPLINK_BACKOFF_LEAST_NS);
		else
			begin_anew(u);
		return;
	default:
		if (u->events.on_refused)
			u->events.on_refused(u->events.data, u->address, m->why);
		uplink_sessions_set(&u->sessions, q->incarnation, 0);
		trouble(u, *m->why ? m->why : "refused", u->backoff_ns);
	}
}

/* -------- connection -------- */

static void on_ready(void *data)
{
	struct uplink *u = data;

	CHECK(u->magic == UPLINK_MAGIC);
	pump(u);
}

static void on_gone(void *data, const char *why)
{
	struct uplink *u = data;

	CHECK(u->magic == UPLINK_MAGIC);
	lost(u, why);
}

static int on_message(void *data, const uint8_t *message, size_t size)
{
	struct uplink *u = data;
	struct uplink_request *q = NULL;
	struct frame_budget budget;
	Tidegate__UplinkReply *m;
	uint32_t id;

	CHECK(u->magic == UPLINK_MAGIC);
	if (size < sizeof(id))
		return -EPROTO;
	id = sp_get32(message);
	for (unsigned int i = 0; i < u->window; i++)
		if (id && u->requests[i].id == id)
			q = &u->requests[i];
	if (!q)
		return 0; /* a late reply to a request that was given up */
	frame_budget_init(&budget, UPLINK_REPLY_BUDGET);
	m = tidegate__uplink_reply__unpack(&budget.allocator, size - sizeof(id),
					   message + sizeof(id));
	if (m)
		take_reply(u, q, m);
	frame_budget_fini(&budget);
	if (!m)
		return -EPROTO;
	pump(u);
	return 0;
}

/* -------- life -------- */

static int copy_options(struct uplink *u, const struct uplink_options *o)
{
	u->address = strdup(o->address);
	u->agent = strdup(o->agent);
	if (!u->address || !u->agent)
		return -ENOMEM;
	for (size_t i = 0; i < 2 * o->label_count && i < ARRAY_LEN(u->labels); i++) {
		u->labels[i] = strdup(o->labels[i]);
		if (!u->labels[i])
			return -ENOMEM;
		u->label_strings = i + 1;
	}
	u->events = o->events;
	u->is_sum = o->is_sum;
	u->backoff_ns =
		o->backoff_ns > UPLINK_BACKOFF_LEAST_NS ? o->backoff_ns : UPLINK_BACKOFF_LEAST_NS;
	u->backoff_now_ns = UPLINK_BACKOFF_LEAST_NS;
	u->timeout_ns = o->timeout_ns ? o->timeout_ns : UPLINK_TIMEOUT_NS;
	u->timeout_now_ns = u->timeout_ns;
	u->window = o->window ? o->window : UPLINK_WINDOW;
	if (u->window > UPLINK_WINDOW_MAX)
		u->window = UPLINK_WINDOW_MAX;
	return 0;
}

struct uplink *uplink_close(struct uplink *u)
{
	if (!u)
		return NULL;
	CHECK(u->magic == UPLINK_MAGIC);
	u->timer = loop_remove(u->timer);
	dialer_close(u->dialer);
	spool_cursor_close(u->cursor);
	for (unsigned int i = 0; i < UPLINK_WINDOW_MAX; i++)
		uplink_request_free(&u->requests[i]);
	for (size_t i = 0; i < ARRAY_LEN(u->labels); i++)
		free(u->labels[i]);
	free(u->address);
	free(u->agent);
	u->magic = 0;
	free(u);
	return NULL;
}

DEFINE_CLEANUP(struct uplink *, uplink_close)

static int dial(struct uplink *u, const struct uplink_options *o, struct err *e)
{
	const struct dialer_spec spec = {
		.address = o->address,
		.self = SP_REQ,
		.expect = SP_REP,
		.message_max = SP_MESSAGE_MAX,
		.queue_bytes = UPLINK_QUEUE_BYTES,
		.backoff_ns = u->backoff_ns,
		.tls = o->tls,
		.on_ready = on_ready,
		.on_message = on_message,
		.on_room = on_ready,
		.on_lost = on_gone,
	};

	return dialer_open(u->loop, &spec, u, &u->dialer, e);
}

int uplink_open(struct loop *loop, struct spool *spool, const struct uplink_options *options,
		struct uplink **ret, struct err *e)
{
	_cleanup_(uplink_close_p) struct uplink *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return err_set(e, -ENOMEM, "uplink: out of memory");
	u->magic = UPLINK_MAGIC;
	u->loop = loop;
	u->spool = spool;
	if (getrandom(&u->random, sizeof(u->random), 0) != sizeof(u->random) || !u->random)
		u->random = clock_mono_ns() | 1;
	u->next_id = (uint32_t)random_next(u);
	r = copy_options(u, options);
	if (r < 0)
		return err_set(e, r, "uplink: out of memory");
	r = spool_cursor_open(spool, options->address, &u->cursor);
	if (r < 0)
		return err_set(e, r, "uplink: no cursor for %s: %s", options->address, err_text(r));
	r = loop_add_timer(loop, UINT32_MAX, 0, on_timer, u, &u->timer);
	if (r < 0)
		return err_set(e, r, "uplink: no timer: %s", err_text(r));
	r = dial(u, options, e);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(u);
	return 0;
}

void uplink_kick(struct uplink *u)
{
	CHECK(u->magic == UPLINK_MAGIC);
	pump(u);
}

void uplink_renew(struct uplink *u)
{
	CHECK(u->magic == UPLINK_MAGIC);
	begin_anew(u);
	dialer_prove(u->dialer);
	dialer_again(u->dialer);
}

uint64_t uplink_pending(const struct uplink *u, uint64_t *ret_frames)
{
	return spool_cursor_pending(u->cursor, ret_frames);
}

void uplink_stats(const struct uplink *u, struct uplink_stats *ret)
{
	struct dialer_stats dialer;

	*ret = u->stats;
	dialer_stats(u->dialer, &dialer);
	ret->connects = dialer.connects;
	ret->failures = dialer.failures;
	ret->resumed = dialer.resumed;
}
