/* SPDX-License-Identifier: Apache-2.0 */
/* Who the spool is: its incarnation, in its directory and again beside host.seg (the twin), and what
 * has been given away in it. Part of struct spool; one process, one thread. */
#include "bus/spool.h"

#include "base/str.h"
#include "bus/spool_state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define TWIN_NAME   "incarnation"
#define RESERVE_IDS 256u

static int boot_id_read(uint8_t ret[16])
{
	char text[64];
	unsigned int n = 0;
	int r = str_read_file("/proc/sys/kernel/random/boot_id", text, sizeof(text));

	if (r < 0)
		return r;
	for (const char *p = text; *p && n < 32; p++) {
		int digit = *p >= '0' && *p <= '9'   ? *p - '0'
			    : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
						     : -1;

		if (digit < 0)
			continue;
		ret[n / 2] = (uint8_t)(n % 2 ? ret[n / 2] | digit : digit << 4);
		n++;
	}
	return n == 32 ? 0 : -EINVAL;
}

static void random_fill(uint8_t id[16])
{
	while (getrandom(id, 16, 0) != 16)
		; /* only a signal can interrupt it */
}

void spool_identity_boot(const struct spool_options *options, uint8_t ret[16])
{
	if (options->boot_id)
		memcpy(ret, options->boot_id, 16);
	else if (boot_id_read(ret) < 0) /* unknown: never continue */
		random_fill(ret);
}

void spool_identity_begin(struct spool *s, const uint8_t boot_id[16])
{
	s->identity = (struct spool_identity){
		.reserved_sequence = 1,
		.next_id = 1,
		.life = s->identity.life,
	};
	memcpy(s->identity.boot_id, boot_id, 16);
	random_fill(s->identity.incarnation);
	s->is_continued = false;
	s->next_sequence = 1;
}

/* Without a twin a wiped spool begins a new incarnation; a twin that is behind would be worse. */
static void twin_forget(struct spool *s)
{
	spool_slots_close(&s->twin_slots);
	if (s->twin_dir_fd >= 0) {
		unlinkat(s->twin_dir_fd, TWIN_NAME, 0);
		close(s->twin_dir_fd);
	}
	s->twin_dir_fd = -1;
}

/* 1 when there is one, 0 when it was made. Another user's file is not ours, and never followed. */
static int twin_open(struct spool *s, const char *dir, struct spool_identity *ret)
{
	struct spool_identity found;
	struct stat st;
	int r;

	s->twin_dir = dir;
	if (!dir)
		return -ENOENT;
	s->twin_dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->twin_dir_fd < 0)
		return -errno;
	r = spool_slots_open(&s->twin_slots, s->twin_dir_fd, TWIN_NAME, SPOOL_IDENTITY_MAGIC,
			     sizeof(found), &found);
	if (r >= 0 && (fstat(s->twin_slots.fd, &st) < 0 || st.st_uid != geteuid()))
		r = -EPERM;
	if (r < 0)
		twin_forget(s);
	if (r == 1 && ret)
		*ret = found;
	return r;
}

void spool_twin_save(struct spool *s)
{
	struct spool_identity twin = s->identity;
	struct stat st;

	twin.reserved_sequence = s->next_sequence;
	if (s->twin_dir_fd >= 0 && (fstat(s->twin_slots.fd, &st) < 0 || !st.st_nlink))
		twin_forget(s); /* somebody removed it, perhaps with its directory */
	if (s->twin_dir_fd < 0 && twin_open(s, s->twin_dir, NULL) < 0)
		return;
	if (spool_slots_write(&s->twin_slots, &twin) < 0)
		twin_forget(s);
}

void spool_identity_save(struct spool *s)
{
	if (s->dir_fd >= 0)
		spool_slots_write(&s->identity_slots, &s->identity);
	spool_twin_save(s);
}

static bool identity_fits(const struct spool_identity *i, const uint8_t boot_id[16], uint64_t life)
{
	return memcmp(i->boot_id, boot_id, 16) == 0 && (!life || !i->life || i->life == life);
}

void spool_identity_choose(struct spool *s, const struct spool_options *o,
			   const uint8_t boot_id[16], bool has_own)
{
	struct spool_identity twin = {0};
	bool has_twin =
		twin_open(s, o->twin_dir, &twin) == 1 && identity_fits(&twin, boot_id, o->life);

	has_own = has_own && identity_fits(&s->identity, boot_id, o->life);
	s->is_continued = has_own || has_twin;
	if (has_twin) {
		bool is_same = has_own && memcmp(s->identity.incarnation, twin.incarnation,
						 sizeof(twin.incarnation)) == 0;
		uint64_t reserved = is_same ? s->identity.reserved_sequence : 1;

		s->has_twin = true;
		s->next_sequence = twin.reserved_sequence;
		if (is_same && s->identity.next_id > twin.next_id)
			twin.next_id = s->identity.next_id;
		s->identity = twin;
		s->identity.reserved_sequence = reserved;
	} else if (has_own) {
		s->next_sequence = s->identity.reserved_sequence;
	}
	s->identity.life = o->life ? o->life : s->is_continued ? s->identity.life : 0;
	if (!s->is_continued || spool_needs_anew(s))
		spool_identity_begin(s, boot_id);
}

bool spool_needs_anew(const struct spool *s)
{
	return s->identity.next_id > FRAME_ID_MAX / 2;
}

int spool_set_life(struct spool *s, uint64_t life)
{
	if (s->identity.life == life || !life)
		return 0;
	if (s->identity.life)
		return -ESTALE;
	s->identity.life = life;
	spool_identity_save(s);
	return 0;
}

const uint8_t *spool_incarnation(const struct spool *s)
{
	return s->identity.incarnation;
}

uint64_t spool_next_sequence(const struct spool *s)
{
	return s->next_sequence;
}

bool spool_is_continued(const struct spool *s)
{
	return s->is_continued;
}

uint32_t spool_first_id(const struct spool *s)
{
	return s->identity.next_id;
}

void spool_reserve_ids(struct spool *s, uint32_t next_id)
{
	if (next_id <= s->identity.next_id)
		return;
	s->identity.next_id = next_id + RESERVE_IDS;
	spool_identity_save(s);
}
