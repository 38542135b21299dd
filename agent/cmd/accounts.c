/* SPDX-License-Identifier: Apache-2.0 */
/* Users, groups and directories of a daemon's processes. No state; runs in the supervisor. */
#include "cmd/supervisor.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static gid_t group_of(const char *name, gid_t fallback)
{
	bool is_known;

	return process_group_id(name, fallback, &is_known);
}

uid_t supervisor_uid(const struct config *config, const struct process_spec *spec)
{
	char name[128];
	bool is_known;

	if (!spec->user_suffix || geteuid() != 0)
		return geteuid();
	snprintf(name, sizeof(name), "%s-%s", config->_user, spec->user_suffix);
	return process_user_id(name, (uid_t)(PROCESS_ID_BASE + spec->fallback_id), &is_known);
}

gid_t supervisor_gid_run(const struct config *config)
{
	char name[128];

	snprintf(name, sizeof(name), "%s-run", config->_user);
	return geteuid() == 0 ? group_of(name, PROCESS_ID_BASE + 20) : getegid();
}

gid_t supervisor_gid_app(const struct config *config)
{
	return geteuid() == 0 ? group_of(config->_group_app, PROCESS_ID_BASE + 21) : getegid();
}

gid_t supervisor_gid_admin(const struct config *config)
{
	return geteuid() == 0 ? group_of(config->_group_admin, PROCESS_ID_BASE + 22) : getegid();
}

void supervisor_say_users(const struct supervisor_plan *plan, const struct config *config)
{
	char names[256] = "";
	size_t len = 0;

	for (size_t i = 0; i < plan->process_count && geteuid() == 0; i++) {
		const struct process_spec *spec = &plan->processes[i].spec;
		bool is_known = true;
		char name[128];
		uid_t uid = 0;

		snprintf(name, sizeof(name), "%s-%s", config->_user,
			 spec->user_suffix ? spec->user_suffix : "");
		if (spec->user_suffix)
			uid = process_user_id(name, (uid_t)(PROCESS_ID_BASE + spec->fallback_id),
					      &is_known);
		if (!is_known && len < sizeof(names))
			len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s=%u",
						len ? " " : "", name, uid);
	}
	if (names[0])
		log_info("supervisor", "users that are not known here get fixed numbers",
			 "users=\"%s\"", names);
}

int supervisor_make_dir(const char *path, mode_t mode, uid_t uid, gid_t gid, struct err *e)
{
	char part[512];
	struct stat st;

	if (!str_copy(part, sizeof(part), path))
		return err_set(e, -ENAMETOOLONG, "directory name is too long: %.60s…", path);
	for (char *p = part + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return err_set(e, -errno,
				       "cannot make directory %s: %s; run as root or configure "
				       "another place",
				       part, err_text(errno));
		*p = c;
		if (!c)
			break;
	}
	/* Never through a link that somebody else put there. */
	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "%s is not a directory; remove it", path);
	if (geteuid() != 0)
		return 0;
	/* In a directory that all may write to, somebody could have been there before us. */
	if (st.st_uid != 0 && st.st_uid != uid)
		return err_set(e, -EPERM, "%s belongs to uid %u; remove it", path, st.st_uid);
	if (lchown(path, uid, gid) < 0 || chmod(path, mode) < 0)
		return err_set(e, -errno, "cannot set owner and mode of %s: %s", path,
			       err_text(errno));
	return 0;
}
