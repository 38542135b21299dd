/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What connections of HTTP/2 leave in the tables. The programs remove what a connection still had
 * when it was closed, as far as they find it; the rest is found here: streams whose connection's
 * number is gone, which never comes again.
 */
#include "probe/set.h"

#include <stdlib.h>

void streams_forget(struct probe_set *set, uint32_t number)
{
	if (!number)
		return;
	bpf_map_delete_elem(set->http2_connections_fd, &number);
	__atomic_store_n(&set->http2->has_left, 1, __ATOMIC_RELAXED);
}

void streams_sweep(struct probe_set *set)
{
	size_t count = 0;
	uint64_t *keys, key;
	const uint64_t *last = NULL;

	if (!__atomic_exchange_n(&set->http2->has_left, 0, __ATOMIC_RELAXED))
		return;
	/* Keys first: deleting while iterating starts the iteration over. */
	keys = calloc(HTTP2_STREAMS, sizeof(*keys));
	while (keys && count < HTTP2_STREAMS &&
	       bpf_map_get_next_key(set->http2_streams_fd, last, &key) == 0) {
		keys[count] = key;
		last = &keys[count++];
	}
	for (size_t i = 0; i < count; i++) {
		uint32_t number = (uint32_t)(keys[i] >> 32);
		struct http2 h;

		if (bpf_map_lookup_elem(set->http2_connections_fd, &number, &h))
			bpf_map_delete_elem(set->http2_streams_fd, &keys[i]);
	}
	free(keys);
}
