/* SPDX-License-Identifier: Apache-2.0 */
/* Huffman's code of HPACK (RFC 7541, appendix B), as far as text needs it. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bits of text, the first one highest in the first byte; what is not used of the last byte is ones,
 * as at the end of a string. False: too long for size, or a character that is no printable ASCII;
 * ret and ret_bits are then undefined. */
bool huffman_encode(const char *text, uint8_t *ret, size_t size, size_t *ret_bits);
