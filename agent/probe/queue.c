/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accept queues through netlink sock_diag: one dump of the listening sockets of each family, which
 * walks the kernel's hash of listeners only. No capability needed. Runs in the keeper.
 */
#include "probe/queue.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TCP_STATE_LISTEN 10 /* the kernel's number */
#define ANSWER_BYTES     32768
#define ANSWER_SECONDS   1 /* answers are made while we receive: this is never waited for */

struct queues {
	int fd;
	uint32_t sequence;
	struct queue *rows;
	size_t count, cap, cursor, refused;
	bool has_read;
	unsigned char answer[ANSWER_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
};

int queues_open(struct queues **ret, struct err *e)
{
	struct timeval patience = {.tv_sec = ANSWER_SECONDS};
	struct queues *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return err_set(e, -ENOMEM, "out of memory");
	q->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (q->fd < 0 ||
	    setsockopt(q->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0) {
		r = -errno;
		queues_close(q);
		return err_set(e, r, "sock_diag: %s: the kernel needs CONFIG_INET_DIAG",
			       err_text(r));
	}
	*ret = q;
	return 0;
}

struct queues *queues_close(struct queues *q)
{
	if (!q)
		return NULL;
	if (q->fd >= 0)
		close(q->fd);
	free(q->rows);
	free(q);
	return NULL;
}

/* ---- one reading ---- */

void queues_begin(struct queues *q)
{
	for (size_t i = 0; i < q->count; i++)
		q->rows[i].is_seen = false;
	q->cursor = q->refused = 0;
}

/* The kernel walks its hash in the same order each time: look where the last one was found. */
static struct queue *find(struct queues *q, uint64_t cookie)
{
	for (size_t n = 0; n < q->count; n++) {
		size_t i = (q->cursor + n) % q->count;

		if (q->rows[i].state.cookie == cookie) {
			q->cursor = i + 1;
			return &q->rows[i];
		}
	}
	return NULL;
}

static struct queue *append(struct queues *q)
{
	struct queue *rows;

	if (q->count == q->cap) {
		size_t cap = q->cap ? q->cap * 2 : 64;

		rows = cap > QUEUES_MAX ? NULL : realloc(q->rows, cap * sizeof(*rows));
		if (!rows)
			return NULL;
		q->rows = rows;
		q->cap = cap;
	}
	return &q->rows[q->count++];
}

void queues_add(struct queues *q, const struct queue_state *state)
{
	struct queue *row = find(q, state->cookie);

	if (row) {
		/* 32 bits that wrap; a reading without drops between two with them adds none. */
		if (state->has_drops && row->state.has_drops)
			row->pending += (uint32_t)(state->drops - row->state.drops);
	} else {
		row = append(q);
		if (!row) {
			q->refused++;
			return;
		}
		*row = (struct queue){.pending = q->has_read ? state->drops : 0};
	}
	row->state = *state;
	row->is_seen = true;
}

void queues_end(struct queues *q)
{
	size_t kept = 0;

	for (size_t i = 0; i < q->count; i++)
		if (q->rows[i].is_seen)
			q->rows[kept++] = q->rows[i];
	q->count = kept;
	q->has_read = true;
}

/* ---- netlink ---- */

int queue_parse(const struct nlmsghdr *h, size_t len, struct queue_state *ret)
{
	const size_t head = NLMSG_LENGTH(sizeof(struct inet_diag_msg));
	struct inet_diag_msg m;
	struct queue_state s = {0};
	size_t at = NLMSG_ALIGN(head);

	if (len < sizeof(*h) || h->nlmsg_len > len || h->nlmsg_len < head)
		return -EBADMSG;
	memcpy(&m, (const unsigned char *)h + NLMSG_HDRLEN, sizeof(m));
	s.cookie = (uint64_t)m.id.idiag_cookie[1] << 32 | m.id.idiag_cookie[0];
	s.inode = m.idiag_inode;
	s.port = ntohs(m.id.idiag_sport);
	s.length = m.idiag_rqueue;
	s.limit = m.idiag_wqueue;
	while (at + sizeof(struct rtattr) <= h->nlmsg_len) {
		const unsigned char *p = (const unsigned char *)h + at;
		struct rtattr a;

		memcpy(&a, p, sizeof(a));
		if (a.rta_len < sizeof(a) || a.rta_len > h->nlmsg_len - at)
			return -EBADMSG;
		if (a.rta_type == INET_DIAG_SKMEMINFO &&
		    a.rta_len >= RTA_LENGTH((SK_MEMINFO_DROPS + 1) * sizeof(uint32_t))) {
			memcpy(&s.drops, p + RTA_LENGTH(SK_MEMINFO_DROPS * sizeof(uint32_t)),
			       sizeof(s.drops));
			s.has_drops = true;
		}
		at += RTA_ALIGN(a.rta_len);
	}
	*ret = s;
	return 0;
}

static int ask(struct queues *q, int family)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} m;
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	memset(&m, 0, sizeof(m));
	m.h.nlmsg_len = sizeof(m);
	m.h.nlmsg_type = SOCK_DIAG_BY_FAMILY;
	m.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	m.h.nlmsg_seq = ++q->sequence;
	m.r.sdiag_family = (uint8_t)family;
	m.r.sdiag_protocol = IPPROTO_TCP;
	m.r.idiag_states = 1u << TCP_STATE_LISTEN;
	m.r.idiag_ext = 1u << (INET_DIAG_SKMEMINFO - 1);
	if (sendto(q->fd, &m, sizeof(m), 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	return 0;
}

/* One datagram of the answer. 1: the last one. */
static int take(struct queues *q, size_t len)
{
	size_t at = 0;

	while (at + sizeof(struct nlmsghdr) <= len) {
		const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)(q->answer + at);
		struct queue_state state;
		int r;

		if (h->nlmsg_len < sizeof(*h) || h->nlmsg_len > len - at)
			return -EBADMSG;
		/* What is left of an answer that was given up is not ours. */
		if (h->nlmsg_seq == q->sequence) {
			if (h->nlmsg_type == NLMSG_DONE)
				return 1;
			if (h->nlmsg_type == NLMSG_ERROR) {
				struct nlmsgerr error;

				if (h->nlmsg_len < NLMSG_LENGTH(sizeof(error)))
					return -EBADMSG;
				memcpy(&error, (const unsigned char *)h + NLMSG_HDRLEN,
				       sizeof(error));
				return error.error < 0 ? error.error : -EBADMSG;
			}
			r = queue_parse(h, len - at, &state);
			if (r < 0)
				return r;
			queues_add(q, &state);
		}
		at += NLMSG_ALIGN(h->nlmsg_len);
	}
	return 0;
}

static int dump(struct queues *q, int family)
{
	int r = ask(q, family);

	while (r == 0) {
		ssize_t n = recv(q->fd, q->answer, sizeof(q->answer), MSG_TRUNC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = -errno;
		else if ((size_t)n > sizeof(q->answer))
			r = -EMSGSIZE;
		else
			r = take(q, (size_t)n);
	}
	return r < 0 ? r : 0;
}

int queues_read(struct queues *q)
{
	int r;

	queues_begin(q);
	r = dump(q, AF_INET);
	if (r >= 0) {
		r = dump(q, AF_INET6);
		if (r == -ENOENT) /* no IPv6 here */
			r = 0;
	}
	if (r >= 0)
		queues_end(q);
	else
		/* Half a reading must not make the other half look new the next time. */
		for (size_t i = 0; i < q->count; i++)
			q->rows[i].is_seen = false;
	return r;
}

struct queue *queues_rows(struct queues *q, size_t *ret_count)
{
	*ret_count = q->count;
	return q->rows;
}

size_t queues_refused(const struct queues *q)
{
	return q->refused;
}
