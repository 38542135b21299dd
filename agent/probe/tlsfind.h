/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of a TLS library in an ELF file: OpenSSL's by name, Go's by .gopclntab. Process: the
 * finder's child. */
#pragma once

#include "probe/elffile.h"
#include "probe/flow.h"

/* scratch: its contents are lost. */
void tlsfind(const struct elffile *f, struct flow *scratch, struct finder_tls *ret);
