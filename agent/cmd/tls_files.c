/* SPDX-License-Identifier: Apache-2.0 */
/* TLS files of a process that connects, and their lines in the log. */
#include "cmd/tls_files.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>

#define LOOK_MS     1000
#define OLD         0.9 /* whoever renews has done it by then */
#define OLD_TOLD_NS (3600 * NS_PER_S)

int tls_files_check(const struct config *config, bool *ret_is_set, struct err *e)
{
	unsigned int set =
		!!*config->tls_ca_file + !!*config->tls_cert_file + !!*config->tls_key_file;

	*ret_is_set = set == 3;
	if (set && set != 3)
		return err_set(e, -EINVAL,
			       "tls.ca_file, tls.cert_file and tls.key_file belong together: set "
			       "all three or none");
	return 0;
}

static void say(struct tls_files *f, const char *why)
{
	if (str_equal(why, f->said))
		return;
	f->failures++;
	str_copy(f->said, sizeof(f->said), why);
	log_error(f->process, "TLS files cannot be read yet, trying again", "why=\"%s\"", why);
}

static void load(struct tls_files *f)
{
	struct err e = {0};

	if (credentials_open(&f->paths, &f->credentials, &e) < 0) {
		f->credentials = NULL;
		say(f, e.text);
	} else if (*f->said) {
		log_info(f->process, "TLS files are in use", "cert=%s", f->paths.certificate);
	}
}

double tls_files_lived_ratio(const struct tls_files *f)
{
	return credentials_lived_ratio(f->credentials, (int64_t)(clock_real_ns() / NS_PER_S));
}

static void check_age(struct tls_files *f)
{
	double lived = tls_files_lived_ratio(f);
	uint64_t suppressed;

	if (lived >= OLD && log_allowed(&f->ageing, clock_mono_ns(), &suppressed))
		log_warning(f->process,
			    lived >= 1 ? "our certificate has expired, aggregators will refuse it"
				       : "our certificate expires soon",
			    "cert=%s in_s=%lld", f->paths.certificate,
			    (long long)credentials_expires_s(f->credentials) -
				    (long long)(clock_real_ns() / NS_PER_S));
}

static void on_look(void *data)
{
	struct tls_files *f = data;
	struct err e = {0};
	int r;

	if (!f->credentials) {
		load(f);
		if (f->credentials)
			f->on_change(f->data);
		return;
	}
	check_age(f);
	r = credentials_refresh(f->credentials, &e);
	if (r < 0)
		log_warning(f->process, "new TLS files cannot be used, the old ones stay",
			    "why=\"%s\"", e.text);
	if (r <= 0)
		return;
	log_info(f->process, "new TLS files are in use", "cert=%s", f->paths.certificate);
	f->on_change(f->data);
}

void tls_files_open(struct tls_files *f, struct loop *loop, const struct config *config,
		    const char *process, void (*on_change)(void *data), void *data)
{
	struct err e = {0};
	bool is_set;
	int r;

	*f = (struct tls_files){
		.process = process,
		.paths = {config->tls_ca_file, config->tls_cert_file, config->tls_key_file},
		.on_change = on_change,
		.data = data,
		.ageing.interval_ns = OLD_TOLD_NS,
	};
	r = tls_files_check(config, &is_set, &e);
	if (r < 0)
		log_error(process, "no TLS", "why=\"%s\"", e.text);
	if (!is_set)
		return;
	load(f);
	r = loop_add_timer(loop, LOOK_MS, LOOK_MS, on_look, f, &f->timer);
	if (r < 0)
		log_error(process, "TLS files are read once only", "why=\"%s\"", err_text(r));
}

void tls_files_close(struct tls_files *f)
{
	f->timer = loop_remove(f->timer);
	f->credentials = credentials_close(f->credentials);
}

uint64_t tls_files_loads(const struct tls_files *f, uint64_t *ret_failures)
{
	uint64_t loads = 0;

	*ret_failures = 0;
	if (f->credentials)
		loads = credentials_loads(f->credentials, ret_failures);
	*ret_failures += f->failures;
	return loads;
}
