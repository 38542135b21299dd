/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration file. Owns the text of the file and libcyaml's data while it loads. */
#include "config/file.h"

#include "base/cleanup.h"
#include "config/keys.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* What libcyaml fills: every value as text, judged later by the same code as the environment's. */
#define RAW_STRING(field) char *field;
#define RAW_LIST(field) \
	char **field;   \
	unsigned int field##_count;
#define RAW_BOOL(field)     RAW_STRING(field)
#define RAW_INT(field)      RAW_STRING(field)
#define RAW_DURATION(field) RAW_STRING(field)
#define RAW_BYTES(field)    RAW_STRING(field)
#define RAW_RATIO(field)    RAW_STRING(field)
#define RAW_ENUM(field)     RAW_STRING(field)

struct raw {
#define OPTION(side_, section, name, type, def, min, max, words, help) RAW_##type(section##_##name)
#include "config/options.def"
#undef OPTION
};

static const cyaml_schema_value_t entry_schema = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED),
};

#define RAW_FLAGS (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define FIELD_STRING(key, field) \
	CYAML_FIELD_STRING_PTR(key, RAW_FLAGS, struct raw, field, 0, CYAML_UNLIMITED),
#define FIELD_LIST(key, field) \
	CYAML_FIELD_SEQUENCE(key, RAW_FLAGS, struct raw, field, &entry_schema, 0, CYAML_UNLIMITED),
#define FIELD_BOOL(key, field)     FIELD_STRING(key, field)
#define FIELD_INT(key, field)      FIELD_STRING(key, field)
#define FIELD_DURATION(key, field) FIELD_STRING(key, field)
#define FIELD_BYTES(key, field)    FIELD_STRING(key, field)
#define FIELD_RATIO(key, field)    FIELD_STRING(key, field)
#define FIELD_ENUM(key, field)     FIELD_STRING(key, field)

static const cyaml_schema_field_t row_fields[] = {
#define OPTION(side_, section, name, type, def, min, max, words, help) \
	FIELD_##type(#name, section##_##name)
#include "config/options.def"
#undef OPTION
};

/* One section's rows are neighbours in options.def; each section is a mapping laid over the whole
 * of struct raw, so that its fields keep their offsets. */
struct schema {
	cyaml_schema_field_t top[CONFIG_OPTION_COUNT + 1];
	cyaml_schema_field_t fields[2 * CONFIG_OPTION_COUNT];
	cyaml_schema_value_t root;
};

static void schema_init(struct schema *s)
{
	size_t top = 0, used = 0;

	*s = (struct schema){0};
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
		const struct option *o = &option_rows[i];

		if (!*o->section) {
			s->top[top++] = row_fields[i];
			continue;
		}
		if (!i || !str_equal(option_rows[i - 1].section, o->section)) {
			if (used)
				used++; /* the zeroed end of the section before */
			s->top[top++] = (cyaml_schema_field_t){
				.key = o->section,
				.value =
					{
						.type = CYAML_MAPPING,
						.flags = CYAML_FLAG_OPTIONAL,
						.data_size = sizeof(struct raw),
						.mapping = {.fields = &s->fields[used]},
					},
			};
		}
		s->fields[used++] = row_fields[i];
	}
	s->root = (cyaml_schema_value_t){
		CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw, s->top),
	};
}

int problem_report(const struct problems *p, const char *fmt, ...)
{
	struct err text;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text.text, sizeof(text.text), fmt, ap);
	va_end(ap);
	if (!p->is_lenient)
		return err_set(p->e, -EINVAL, "%s", text.text);
	p->warn(p->data, text.text);
	return 0;
}

static int read_file(const char *file, char **ret, size_t *ret_size, struct err *e)
{
	_cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return err_set(e, -errno, "%s: %s", file, err_text(errno));
	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "%s: %s", file, err_text(errno));
	if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode)) /* /dev/null is no configuration */
		return err_set(e, -EINVAL, "%s: not a file", file);
	text = malloc(FILE_BYTES_MAX + 1);
	if (!text)
		return -ENOMEM;
	while (size <= FILE_BYTES_MAX) {
		n = read(fd, text + size, FILE_BYTES_MAX + 1 - size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "%s: %s", file, err_text(errno));
		if (n == 0)
			break;
		size += (size_t)n;
	}
	if (size > FILE_BYTES_MAX)
		return err_set(e, -EINVAL, "%s: larger than %d bytes", file, FILE_BYTES_MAX);
	*ret = TAKE_PTR(text);
	*ret_size = size;
	return 0;
}

struct complaint {
	char first[200];
};

static void on_cyaml_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
	__attribute__((format(printf, 3, 0)));
static void on_cyaml_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
	struct complaint *complaint = ctx;

	if (level < CYAML_LOG_ERROR || complaint->first[0])
		return;
	vsnprintf(complaint->first, sizeof(complaint->first), fmt, args);
	complaint->first[strcspn(complaint->first, "\n")] = '\0';
}

static int set_rows(const struct keys_check *k, struct config *c, const struct raw *raw)
{
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
		const struct option *o = &option_rows[i];
		const char *at = (const char *)raw + row_fields[i].data_offset;
		char *const *items = *(char *const *const *)at;
		const struct outline_item *item;
		struct err inner = {0};
		unsigned int count;
		int r;

		item = keys_find(k->outline, k->outline->count, o->section, o->name);
		if (!item || (o->type != OPTION_LIST && !items))
			continue;
		if (o->type == OPTION_LIST) {
			if (item->kind != OUTLINE_SEQUENCE)
				continue;
			memcpy(&count, (const char *)raw + row_fields[i].count_offset,
			       sizeof(count));
			r = option_set_list(o, c, items, count, &inner);
		} else {
			r = option_set(o, c, *(const char *const *)at, &inner);
		}
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			r = problem_report(k->problems, "%s:%u: %s", k->file, item->line,
					   inner.text);
		else
			c->source[i] = CONFIG_FILE;
		if (r < 0)
			return r;
	}
	return 0;
}

static int load_text(const struct keys_check *k, struct config *c, char *text, size_t size)
{
	struct complaint complaint = {0};
	/* The outline has judged the keys; what stands in for a cut one is to be passed over. */
	const cyaml_config_t config = {
		.log_fn = on_cyaml_log,
		.log_ctx = &complaint,
		.mem_fn = cyaml_mem,
		.log_level = CYAML_LOG_ERROR,
		.flags = CYAML_CFG_NO_ALIAS | CYAML_CFG_IGNORE_UNKNOWN_KEYS,
	};
	struct schema schema;
	cyaml_data_t *data = NULL;
	cyaml_err_t err;
	size_t left = 0;
	int r;

	r = keys_judge(k, text, &left);
	if (r < 0 || !left)
		return r;
	schema_init(&schema);
	err = cyaml_load_data((const uint8_t *)text, size, &config, &schema.root, &data, NULL);
	if (err == CYAML_ERR_OOM)
		return -ENOMEM;
	if (err != CYAML_OK)
		return problem_report(k->problems, "%s: %s: %s", k->file, cyaml_strerror(err),
				      complaint.first);
	r = set_rows(k, c, data);
	cyaml_free(&config, &schema.root, data, 0);
	return r;
}

int file_apply(struct config *c, const char *file, const struct problems *p)
{
	_cleanup_free_ char *text = NULL, *name = strdup(file);
	struct outline outline;
	struct err inner = {0};
	struct keys_check k = {.file = file, .config = c, .problems = p, .outline = &outline};
	size_t size = 0;
	int r;

	if (!name)
		return -ENOMEM;
	r = read_file(file, &text, &size, &inner);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		if (!p->is_lenient)
			return err_set(p->e, r, "%s", inner.text);
		return problem_report(p, "%s", inner.text);
	}
	free(c->file);
	c->file = TAKE_PTR(name);
	r = outline_scan(text, size, &outline, &inner);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return problem_report(p, "%s:%s", file, inner.text);
	r = load_text(&k, c, text, size);
	outline_fini(&outline);
	return r;
}
