/* SPDX-License-Identifier: Apache-2.0 */
/* The files of tls.* in a process that connects: waited for, taken into use, counted, and how old
 * the certificate is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "certificates.h"
#include "cmd/tls_files.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], paths[3][96];
static struct config config;
static struct authority ours;
static struct tls_files files;
static struct loop *loop;
static unsigned int changes;

static void on_change(void *data)
{
	assert_ptr_equal(data, &changes);
	changes++;
}

static bool (*until)(void);
static uint64_t deadline_ns;

static void on_poll(void *data)
{
	(void)data;
	if (until() || clock_mono_ns() > deadline_ns)
		loop_stop(loop);
}

static void run_until(bool (*condition)(void))
{
	struct loop_watch *watch;

	until = condition;
	deadline_ns = clock_mono_ns() + 20 * NS_PER_S;
	assert_int_equal(loop_add_timer(loop, 1, 5, on_poll, NULL, &watch), 0);
	loop_run(loop);
	loop_remove(watch);
	assert_true(condition());
}

static uint64_t loads(uint64_t *ret_failures)
{
	return tls_files_loads(&files, ret_failures);
}

static bool is_loaded(void)
{
	return files.credentials != NULL;
}

static bool has_failed(void)
{
	uint64_t failures;

	loads(&failures);
	return failures > 0;
}

static bool is_changed(void)
{
	return changes > 0;
}

static void waited_for(void **state)
{
	const struct certificate_spec spec = {.dns = "team-a"};
	uint64_t failures;

	(void)state;
	tls_files_open(&files, loop, &config, "test", on_change, &changes);
	assert_null(files.credentials);
	assert_true(has_failed());
	certificate_make(&ours, &ours, &spec, dir);
	run_until(is_loaded);
	assert_int_equal(loads(&failures), 1);
	assert_int_equal(failures, 1); /* each reason once, not each second */
	assert_int_equal(changes, 1);
	changes = 0;
	certificate_make(&ours, &ours, &spec, dir);
	run_until(is_changed);
	assert_int_equal(loads(&failures), 2);
}

static void none_set(void **state)
{
	char empty[] = "";
	struct config none = {.tls_ca_file = empty, .tls_cert_file = empty, .tls_key_file = empty};
	uint64_t failures;
	bool is_set = true;

	(void)state;
	assert_int_equal(tls_files_check(&none, &is_set, NULL), 0);
	assert_false(is_set);
	assert_int_equal(tls_files_check(&config, &is_set, NULL), 0);
	assert_true(is_set);
	none.tls_cert_file = paths[1];
	assert_int_equal(tls_files_check(&none, &is_set, NULL), -EINVAL);
	assert_false(is_set);
	tls_files_open(&files, loop, &none, "test", on_change, &changes);
	assert_null(files.timer);
	assert_int_equal(loads(&failures), 0);
	assert_int_equal(failures, 0);
}

static void age(void **state)
{
	const struct certificate_spec spec = {.dns = "team-a"}, old = {.is_expired = 1};
	int64_t now = time(NULL);

	(void)state;
	certificate_make(&ours, &ours, &spec, dir); /* two hours before and after now */
	tls_files_open(&files, loop, &config, "test", on_change, &changes);
	assert_non_null(files.credentials);
	assert_true(tls_files_lived_ratio(&files) > 0.49 && tls_files_lived_ratio(&files) < 0.51);
	assert_true(credentials_lived_ratio(files.credentials, now - 10000) == 0);
	assert_true(credentials_lived_ratio(files.credentials, now + 10000) == 1);
	tls_files_close(&files);
	certificate_make(&ours, &ours, &old, dir);
	tls_files_open(&files, loop, &config, "test", on_change, &changes);
	assert_true(tls_files_lived_ratio(&files) == 1);
}

static int setup(void **state)
{
	(void)state;
	changes = 0;
	return loop_open(&loop);
}

static int teardown(void **state)
{
	(void)state;
	tls_files_close(&files);
	loop_close(loop);
	for (unsigned int i = 0; i < 3; i++)
		unlink(paths[i]);
	return 0;
}

static int group_setup(void **state)
{
	static const char *const names[] = {"ca.pem", "cert.pem", "key.pem"};

	(void)state;
	ours = authority_new("CN=ours");
	strcpy(dir, "/tmp/tls-files-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	for (unsigned int i = 0; i < 3; i++)
		snprintf(paths[i], sizeof(paths[i]), "%s/%s", dir, names[i]);
	config.tls_ca_file = paths[0];
	config.tls_cert_file = paths[1];
	config.tls_key_file = paths[2];
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	authority_free(&ours);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(none_set, setup, teardown),
		cmocka_unit_test_setup_teardown(age, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
