/* SPDX-License-Identifier: Apache-2.0 */
/* Durations, sizes and booleans as text: parsing and printing. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VALUE_TEXT_BYTES 32

/* The whole string: a decimal number, fractions allowed, then a unit. -EINVAL, -ERANGE.
 * Durations: ns us ms s m h d, none is seconds; the result is in nanoseconds. Sizes: k M G T are
 * powers of 1000, Ki Mi Gi Ti of 1024, each with or without B; none is bytes. Ratios: % or none (1
 * is all), in millionths. */
int value_parse_duration(const char *s, uint64_t *ret_ns);
int value_parse_bytes(const char *s, uint64_t *ret_bytes);
int value_parse_ratio(const char *s, uint64_t *ret_millionths);
int value_parse_bool(const char *s, bool *ret);

/* Exact and shortest: parses to the same number again. */
const char *value_print_duration(uint64_t ns, char buf[static VALUE_TEXT_BYTES]);
const char *value_print_bytes(uint64_t bytes, char buf[static VALUE_TEXT_BYTES]);
const char *value_print_ratio(uint64_t millionths, char buf[static VALUE_TEXT_BYTES]);
