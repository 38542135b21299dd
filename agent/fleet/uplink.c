/* SPDX-License-Identifier: Apache-2.0 */
/* Uplink requests. Everything that a request makes protobuf-c allocate comes from one budget. */
#include "fleet/uplink.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "fleet/pack.h"
#include "fleet/snapshot.h"
#include "fleet/state.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <string.h>

#define BUDGET_BYTES (2 * UPLINK_REQUEST_MAX + (4u << 20))

struct answer {
	Tidegate__UplinkReply reply;
	uint64_t *sequences; /* three parts of the same array */
	struct err e;
};

int uplink_init(struct uplink *u)
{
	return arena_init(&u->arena, BUDGET_BYTES);
}

void uplink_fini(struct uplink *u)
{
	arena_fini(&u->arena);
}

static void *arena_pb_alloc(void *arena, size_t size)
{
	return arena_alloc(arena, size);
}

static void arena_pb_free(void *arena, void *p)
{
	(void)arena;
	(void)p;
}

static void say(struct answer *a, Tidegate__UplinkReply__Status status)
{
	/* NEED_HELLO and REFUSED outrank NEED_KEY. */
	if (a->reply.status == TIDEGATE__UPLINK_REPLY__STATUS__OK ||
	    a->reply.status == TIDEGATE__UPLINK_REPLY__STATUS__NEED_KEY)
		a->reply.status = status;
}

static void refuse(struct uplink *u, struct answer *a, const char *why)
{
	if (!a->e.text[0])
		str_copy(a->e.text, sizeof(a->e.text), why);
	u->stats.refused++;
	say(a, TIDEGATE__UPLINK_REPLY__STATUS__REFUSED);
}

static void refused_tell(struct uplink *u, enum uplink_refusal what, const char *agent,
			 const char *why)
{
	if (u->on_refused)
		u->on_refused(u->data, what, agent ? agent : "", why);
}

static void hello_refuse(struct uplink *u, struct answer *a, const char *agent, const char *why)
{
	u->stats.hellos++;
	refuse(u, a, why);
	refused_tell(u, UPLINK_REFUSED_HELLO, agent, a->e.text);
}

static int hello_log(struct uplink *u, const struct fleet_hello *h, uint32_t session,
		     uint64_t now_ms)
{
	struct pack p = {0};
	struct iovec part;
	int r;

	pack_u64(&p, session);
	pack_u64(&p, now_ms);
	pack_bytes(&p, h->incarnation, FRAME_INCARNATION_BYTES);
	pack_text(&p, h->agent);
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		pack_text(&p, h->labels[i]);
	pack_u64(&p, h->is_sum);
	part = (struct iovec){p.data, p.size};
	r = p.has_failed ? -ENOMEM : commitlog_append(u->log, UPLINK_RECORD_HELLO, &part, 1);
	pack_fini(&p);
	return r;
}

static int hello_replay(struct uplink *u, const uint8_t *payload, size_t size)
{
	struct fleet_hello h;
	struct unpack up;
	uint32_t session;
	uint64_t now_ms;

	unpack_init(&up, payload, size);
	session = (uint32_t)unpack_u64_max(&up, UINT32_MAX);
	now_ms = unpack_u64(&up);
	h.incarnation = unpack_bytes(&up, FRAME_INCARNATION_BYTES);
	h.agent = unpack_text(&up);
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		h.labels[i] = unpack_text(&up);
	/* Logs of before there were sums end here. */
	h.is_sum = up.at < up.end && unpack_u64(&up);
	if (up.is_bad || !session)
		return -EBADMSG;
	return fleet_say_hello(u->fleet, &h, session, now_ms, &session, NULL);
}

static bool may_speak(struct uplink *u, const char *agent, bool is_sum)
{
	if (!u->may_speak || u->may_speak(u->data, agent, is_sum))
		return true;
	u->stats.foreign++;
	return false;
}

static int hello_handle(struct uplink *u, const Tidegate__Hello *hello, uint64_t now_ms,
			struct answer *a)
{
	struct fleet_hello h = {.agent = hello->agent,
				.incarnation = hello->incarnation.data,
				.is_sum = hello->sums};
	uint32_t session;
	int r;

	if (hello->incarnation.len != FRAME_INCARNATION_BYTES) {
		hello_refuse(u, a, h.agent, "hello: an incarnation has 16 bytes");
		return 0;
	}
	/* Its frames would be read wrong, and what is acknowledged is gone there: it keeps them. */
	if (hello->version > FRAME_VERSION) {
		err_set(&a->e, -EPROTO,
			"hello: version %u, this aggregator knows %u: upgrade it first",
			hello->version, FRAME_VERSION);
		hello_refuse(u, a, h.agent, "");
		return 0;
	}
	if (!may_speak(u, h.agent, h.is_sum)) {
		refuse(u, a,
		       h.is_sum ? "hello: the certificate does not authorise this id as an "
				  "aggregator's"
				: "hello: the certificate does not authorise this agent id");
		return 0;
	}
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++) {
		h.labels[i] = "";
		for (size_t l = 0; l + 1 < hello->n_labels; l += 2)
			if (str_equal(hello->labels[l], fleet_label_names[i]))
				h.labels[i] = hello->labels[l + 1];
	}
	/* Fed with its own sums it would count them again each second. */
	if (h.is_sum && u->own_name && str_equal(h.agent, u->own_name)) {
		hello_refuse(u, a, h.agent,
			     "an aggregator cannot feed itself; if it is another one, give it "
			     "another uplink.id");
		return 0;
	}
	r = fleet_say_hello(u->fleet, &h, 0, now_ms, &session, &a->e);
	if (r < 0) { /* counted by the fleet */
		refuse(u, a, "no memory");
		if (r != -ENOMEM)
			refused_tell(u, UPLINK_REFUSED_HELLO, h.agent, a->e.text);
		return 0;
	}
	if (hello_log(u, &h, session, now_ms) < 0)
		return -EIO;
	a->reply.session = session;
	if (u->on_hello)
		u->on_hello(u->data, h.agent, now_ms);
	return 0;
}

static int frame_log(struct uplink *u, uint32_t session, const uint8_t *data, size_t size,
		     uint64_t now_ms)
{
	uint8_t head[16] = {0};

	for (unsigned int i = 0; i < 8; i++)
		head[i] = (uint8_t)(now_ms >> 8 * i);
	for (unsigned int i = 0; i < 4; i++)
		head[8 + i] = (uint8_t)(session >> 8 * i);
	return commitlog_append(u->log, UPLINK_RECORD_FRAME,
				(struct iovec[]){{head, sizeof(head)},
						 /* writev's type is not const; it is only read */
						 {(void *)(uintptr_t)data, size}},
				2);
}

static void frame_give(struct uplink *u, uint32_t session, struct frame *takes_frame,
		       const uint8_t *sealed, size_t size)
{
	if (u->on_sealed)
		u->on_sealed(u->data, session, takes_frame, sealed, size);
	if (u->on_applied)
		u->on_applied(u->data, session, takes_frame);
	else
		frame_free(takes_frame);
}

static int frame_replay(struct uplink *u, const uint8_t *payload, size_t size)
{
	struct frame *frame;
	uint64_t now_ms = 0;
	uint32_t session = 0;
	int r;

	if (size < 16)
		return -EBADMSG;
	for (unsigned int i = 0; i < 8; i++)
		now_ms |= (uint64_t)payload[i] << 8 * i;
	for (unsigned int i = 0; i < 4; i++)
		session |= (uint32_t)payload[8 + i] << 8 * i;
	r = frame_decode(payload + 16, size - 16, &frame, NULL);
	if (r < 0)
		return r;
	if (fleet_apply(u->fleet, session, frame, size - 16, now_ms, NULL) == FLEET_APPLIED)
		frame_give(u, session, frame, payload + 16, size - 16);
	else
		frame_free(frame);
	return 0;
}

int uplink_replay(void *data, uint32_t type, const uint8_t *payload, size_t size)
{
	struct uplink *u = data;

	if (type == UPLINK_RECORD_HELLO)
		return hello_replay(u, payload, size);
	if (type == UPLINK_RECORD_FRAME)
		return frame_replay(u, payload, size);
	return snapshot_load(u->fleet, type, payload, size);
}

static void frame_is_damaged(struct uplink *u, uint32_t session, const uint8_t *data, size_t size,
			     struct answer *a)
{
	uint64_t sequence;
	bool is_key;

	u->stats.frames_damaged++;
	refused_tell(u, UPLINK_REFUSED_FRAME, fleet_session_agent(u->fleet, session), a->e.text);
	/* Without its checksum nobody knows which frame it is: it comes again. */
	if (frame_peek(data, size, &sequence, &is_key) >= 0)
		a->reply.refused[a->reply.n_refused++] = sequence;
}

/* 1: go on with the next. */
static int frame_handle(struct uplink *u, uint32_t session, const uint8_t *data, size_t size,
			uint64_t now_ms, struct answer *a)
{
	struct frame *frame;
	uint64_t sequence;
	int r = frame_decode(data, size, &frame, &a->e);

	if (r == -ENOMEM)
		return 0;
	if (r == -ENOKEY) {
		u->stats.frames_unreadable++;
		a->reply.dictionary = frame_dictionary_of(data, size);
		return 1;
	}
	if (r < 0) {
		frame_is_damaged(u, session, data, size, a);
		return 1;
	}
	sequence = frame->sequence;
	switch (fleet_apply(u->fleet, session, frame, size, now_ms, &a->e)) {
	case FLEET_APPLIED:
		r = frame_log(u, session, data, size, now_ms);
		frame_give(u, session, frame, data, size);
		if (r < 0)
			return -EIO;
		a->reply.acknowledged[a->reply.n_acknowledged++] = sequence;
		return 1;
	case FLEET_DUPLICATE:
		a->reply.acknowledged[a->reply.n_acknowledged++] = sequence;
		break;
	case FLEET_NEED_KEY:
		a->reply.missing[a->reply.n_missing++] = sequence;
		say(a, TIDEGATE__UPLINK_REPLY__STATUS__NEED_KEY);
		break;
	case FLEET_REFUSED:
		a->reply.refused[a->reply.n_refused++] = sequence;
		refused_tell(u, UPLINK_REFUSED_FRAME, fleet_session_agent(u->fleet, session),
			     a->e.text);
		break;
	case FLEET_NEED_HELLO:
		say(a, TIDEGATE__UPLINK_REPLY__STATUS__NEED_HELLO);
		frame_free(frame);
		return 0;
	case FLEET_NO_MEMORY:
		frame_free(frame);
		return 0;
	}
	frame_free(frame);
	return 1;
}

static int request_handle(struct uplink *u, const Tidegate__Uplink *request, uint64_t now_ms,
			  struct answer *a)
{
	const char *agent;
	int r = 1;

	a->reply.session = request->session;
	if (request->hello) {
		r = hello_handle(u, request->hello, now_ms, a);
		if (r < 0 || a->reply.status == TIDEGATE__UPLINK_REPLY__STATUS__REFUSED)
			return r;
	}
	agent = fleet_session_agent(u->fleet, a->reply.session);
	/* Another's session is as good as none: who kept a number from a log that was lost since says
	 * hello and goes on, who guessed one learns nothing. */
	if (!agent || (!request->hello &&
		       !may_speak(u, agent, fleet_session_is_sum(u->fleet, a->reply.session)))) {
		say(a, TIDEGATE__UPLINK_REPLY__STATUS__NEED_HELLO);
		return 0;
	}
	r = 1;
	for (size_t i = 0; i < request->n_frames && r > 0; i++)
		r = frame_handle(u, a->reply.session, request->frames[i].data,
				 request->frames[i].len, now_ms, a);
	return r < 0 ? r : 0;
}

static int answer_pack(struct answer *a, uint8_t **ret_reply, size_t *ret_size)
{
	size_t size;

	a->reply.why = a->reply.status == TIDEGATE__UPLINK_REPLY__STATUS__OK &&
				       !a->reply.n_refused && !a->reply.dictionary
			       ? NULL
			       : a->e.text;
	if (!a->reply.why)
		a->reply.why = (char *)(uintptr_t)protobuf_c_empty_string;
	size = tidegate__uplink_reply__get_packed_size(&a->reply);
	*ret_reply = malloc(size + 1);
	if (!*ret_reply)
		return -ENOMEM;
	*ret_size = tidegate__uplink_reply__pack(&a->reply, *ret_reply);
	return 0;
}

int uplink_handle(struct uplink *u, const uint8_t *payload, size_t size, uint64_t now_ms,
		  uint8_t **ret_reply, size_t *ret_size)
{
	ProtobufCAllocator allocator = {arena_pb_alloc, arena_pb_free, &u->arena};
	_cleanup_free_ uint64_t *sequences = NULL;
	Tidegate__Uplink *request = NULL;
	struct answer a = {0};
	size_t n;
	int r = 0;

	tidegate__uplink_reply__init(&a.reply);
	arena_reset(&u->arena);
	u->stats.requests++;
	if (size <= UPLINK_REQUEST_MAX)
		request = tidegate__uplink__unpack(&allocator, size, payload);
	n = request ? request->n_frames : 0;
	sequences = calloc(3 * n + 1, sizeof(*sequences));
	if (!sequences)
		return -ENOMEM;
	a.reply.acknowledged = sequences;
	a.reply.missing = sequences + n;
	a.reply.refused = sequences + 2 * n;
	if (!request || n > UPLINK_FRAMES_MAX) {
		u->stats.malformed++;
		refuse(u, &a, "malformed request");
		refused_tell(u, UPLINK_REFUSED_REQUEST, "", a.e.text);
	} else {
		/* Disk space first: what is applied must be able to become durable. */
		r = commitlog_reserve(u->log, size + (n + 1) * 64 + 4096);
		u->no_room = r < 0 ? r : 0;
		if (r < 0)
			refuse(u, &a, "the aggregator's disk is full");
		else
			r = request_handle(u, request, now_ms, &a);
	}
	if (r != -EIO)
		r = answer_pack(&a, ret_reply, ret_size);
	return r;
}
