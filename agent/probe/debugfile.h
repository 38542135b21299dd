/* SPDX-License-Identifier: Apache-2.0 */
/* Separate debug files, as distributions install them. Process: the keeper. */
#pragma once

#include <stdint.h>

/* Opens /usr/lib/debug/.build-id/xx/yyyy.debug as process pid sees it: no symbolic link leads out of
 * its root. A regular file, read-only; negative errno. build_id is hexadecimal and may be hostile:
 * -EINVAL. */
int debugfile_open(uint32_t pid, const char *build_id);
