/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a commit log or a snapshot: opening must succeed and a view must come out. The first
 * byte says which; bit 1 of it seals each of the length-prefixed pieces that follow as a record, so
 * that the fuzzer gets behind the checksum; else the rest is the file itself.
 */
#include "fleet/logread.h"
#include "fleet/merge.h"
#include "fleet/uplink.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64];
static const char *const names[] = {"commit.0.log",     "snapshot.1",     "commit.1.log",
				    "commit.0.log.bad", "snapshot.1.bad", "commit.1.log.bad",
				    "snapshot.new"};

static void files_remove(void)
{
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
}

static void dir_remove(void)
{
	files_remove();
	rmdir(dir);
}

static void record_write(FILE *f, uint32_t type, const uint8_t *data, size_t size)
{
	uint8_t record[LOGREAD_HEADER_BYTES + 65536];

	memcpy(record + LOGREAD_HEADER_BYTES, data, size);
	logread_seal(record, type, (uint32_t)size);
	fwrite(record, 1, LOGREAD_HEADER_BYTES + size, f);
}

static void file_write(uint8_t how, const uint8_t *data, size_t size)
{
	char path[128];
	uint64_t records = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, names[how & 1]);
	f = fopen(path, "w");
	if (!f)
		abort();
	if (!(how & 2))
		fwrite(data, 1, size, f);
	while ((how & 2) && size >= 3) {
		size_t n = (size_t)data[1] | (size_t)data[2] << 8;

		n = n < size - 3 ? n : size - 3;
		record_write(f, data[0] & 31, data + 3, n);
		records++;
		data += 3 + n;
		size -= 3 + n;
	}
	if ((how & 3) == 3)
		record_write(f, LOGREAD_TYPE_END, (const uint8_t *)&records, sizeof(records));
	fclose(f);
}

static void views_read(const struct fleet *fleet)
{
	for (int by = MERGE_BY_FLEET; by <= MERGE_BY_INSTANCE; by++) {
		struct merge_options o = {.by = (enum merge_by)by, .stale_ms = 1000};
		struct merge_view *v;
		struct merge_series s;

		if (merge_view_new(fleet, &o, &v) < 0)
			abort();
		for (size_t i = 0; i < merge_view_count(v); i++)
			if (merge_view_get(v, i, &s) && s.kind == METRIC_HISTOGRAM)
				histogram_count(s.cells);
		merge_view_free(v);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct fleet_limits limits = {.agents = 100, .agent_series = 1000, .series = 10000};
	struct uplink u = {0};

	if (!dir[0]) {
		strcpy(dir, "/dev/shm/tidegate-fuzz-XXXXXX");
		if (!mkdtemp(dir))
			abort();
		atexit(dir_remove);
	}
	if (!size)
		return 0;
	file_write(data[0], data + 1, size - 1);
	if (fleet_new(&limits, &u.fleet) < 0 || uplink_init(&u) < 0)
		abort();
	if (commitlog_open(dir, uplink_replay, &u, &u.log, NULL) < 0)
		abort();
	views_read(u.fleet);
	fleet_depart(u.fleet, UINT64_MAX / 2, 1);
	views_read(u.fleet);
	commitlog_close(u.log);
	uplink_fini(&u);
	fleet_free(u.fleet);
	files_remove();
	return 0;
}
