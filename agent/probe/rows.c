/* SPDX-License-Identifier: Apache-2.0 */
/* What rows of cells count (bpf/rows.bpf.h), from the keeper's side. */
#include "probe/set.h"

/* The pair of a row; -1: none yet. */
static int pair_of(const uint64_t *pairs, unsigned int rows, unsigned int row, unsigned int most)
{
	uint64_t pair = row < rows ? __atomic_load_n(&pairs[row], __ATOMIC_RELAXED) : 0;

	return pair && pair <= most ? (int)(pair - 1) : -1;
}

bool probe_request_row(const struct probe_set *set, unsigned int row, enum http_method *ret_method,
		       unsigned int *ret_code)
{
	int pair = pair_of(set->control->request_pairs, REQUEST_ROWS, row, REQUEST_PAIRS);

	if (pair < 0)
		return false;
	*ret_method = (enum http_method)(pair / HTTP_CODES);
	*ret_code = 100 + (unsigned int)pair % HTTP_CODES;
	return true;
}

bool probe_error_row(const struct probe_set *set, unsigned int row, enum syscall_id *ret_id,
		     enum errno_cell *ret_error)
{
	int pair = pair_of(set->control->error_pairs, ERROR_ROWS, row, ERROR_PAIRS);

	if (pair < 0)
		return false;
	*ret_id = (enum syscall_id)(pair / ERRNOS);
	*ret_error = (enum errno_cell)(pair % ERRNOS);
	return true;
}

static uint64_t count_of(const uint64_t *pairs, unsigned int rows, uint64_t pair,
			 const uint64_t *counts)
{
	for (unsigned int i = 0; i < rows && pairs[i]; i++)
		if (pairs[i] == pair + 1)
			return counts[i];
	return 0;
}

uint64_t probe_requests(const struct probe_set *set, const struct cells *cells,
			enum http_method method, unsigned int code)
{
	return count_of(set->control->request_pairs, REQUEST_ROWS,
			(uint64_t)method * HTTP_CODES + code - 100, cells->requests);
}

uint64_t probe_errors(const struct probe_set *set, const struct cells *cells, enum syscall_id id,
		      enum errno_cell error)
{
	return count_of(set->control->error_pairs, ERROR_ROWS, (uint64_t)id * ERRNOS + error,
			cells->syscall_errors);
}
