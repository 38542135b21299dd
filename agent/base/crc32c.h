/* SPDX-License-Identifier: Apache-2.0 */
/* CRC32C (Castagnoli, RFC 3720): the checksum of sealed frames, spool and commit log. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* crc is the result for what came before, 0 at the start. The same number on every machine. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

/* The portable path alone, so that a test can compare it with the one that crc32c() chose. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);
