/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the system's resolver. A question is shared by the loop and its thread; whoever is
 * done last frees it. */
#include "base/resolver.h"

#include "base/err.h"
#include "base/str.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RESOLVER_MAGIC 0x4e414d45u
#define STACK_BYTES    (512u << 10) /* modules of the name service are not frugal */

struct question {
	atomic_uint refs;
	int done_fd; /* readable when the answer is there */
	char host[256], port[8];
	struct resolver_address addresses[RESOLVER_ADDRESSES_MAX];
	size_t count;
	char why[128];
};

struct resolver {
	uint32_t magic;
	struct question *question;
	struct loop_watch *watch;
	resolver_fn fn;
	void *data;
};

static void question_unref(struct question *q)
{
	if (atomic_fetch_sub(&q->refs, 1) != 1)
		return;
	close(q->done_fd);
	free(q);
}

static void *answer(void *data)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct question *q = data;
	struct addrinfo *list = NULL;
	const uint64_t one = 1;
	int r = getaddrinfo(q->host, q->port, &hints, &list);

	if (r != 0)
		snprintf(q->why, sizeof(q->why), "cannot resolve the name: %s",
			 r == EAI_SYSTEM ? err_text(errno) : gai_strerror(r));
	for (const struct addrinfo *i = r == 0 ? list : NULL; i; i = i->ai_next) {
		struct resolver_address *a = &q->addresses[q->count];

		if (q->count == RESOLVER_ADDRESSES_MAX || i->ai_addrlen > sizeof(a->addr))
			break;
		memcpy(&a->addr, i->ai_addr, i->ai_addrlen);
		a->len = i->ai_addrlen;
		q->count++;
	}
	if (r == 0)
		freeaddrinfo(list);
	/* Cannot fail: a counter of 1 fits, the descriptor is ours. */
	if (write(q->done_fd, &one, sizeof(one)) != sizeof(one))
		q->count = 0;
	question_unref(q);
	return NULL;
}

static void on_done(void *data, int fd, unsigned int events)
{
	struct resolver *r = data;
	struct question *q = r->question;
	resolver_fn fn = r->fn;
	uint64_t value;

	(void)events;
	CHECK(r->magic == RESOLVER_MAGIC);
	if (read(fd, &value, sizeof(value)) < 0)
		return;
	data = r->data;
	atomic_fetch_add(&q->refs, 1);
	resolver_forget(r);
	fn(data, q->addresses, q->count, q->why);
	question_unref(q);
}

static struct question *question_new(const char *host, uint16_t port)
{
	struct question *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->refs = 1;
	q->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->done_fd < 0 || !str_copy(q->host, sizeof(q->host), host)) {
		if (q->done_fd >= 0)
			close(q->done_fd);
		free(q);
		return NULL;
	}
	snprintf(q->port, sizeof(q->port), "%u", port);
	return q;
}

/* The thread has a reference of its own. */
static int thread_start(struct question *q)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	r = pthread_attr_init(&attr);
	if (r != 0)
		return -r;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	atomic_fetch_add(&q->refs, 1);
	r = pthread_create(&thread, &attr, answer, q);
	if (r != 0)
		atomic_fetch_sub(&q->refs, 1);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

int resolver_ask(struct loop *loop, const char *host, uint16_t port, resolver_fn fn, void *data,
		 struct resolver **ret)
{
	struct question *q = question_new(host, port);
	struct resolver *r = calloc(1, sizeof(*r));
	int error;

	if (!q || !r) {
		if (q)
			question_unref(q);
		free(r);
		return -ENOMEM;
	}
	*r = (struct resolver){RESOLVER_MAGIC, q, NULL, fn, data};
	error = loop_add_fd(loop, q->done_fd, LOOP_READ, on_done, r, &r->watch);
	if (error == 0)
		error = thread_start(q);
	if (error < 0) {
		resolver_forget(r);
		return error;
	}
	*ret = r;
	return 0;
}

struct resolver *resolver_forget(struct resolver *r)
{
	if (!r)
		return NULL;
	CHECK(r->magic == RESOLVER_MAGIC);
	r->magic = 0;
	loop_remove(r->watch);
	question_unref(r->question);
	free(r);
	return NULL;
}
