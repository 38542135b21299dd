/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* All BPF programs of the keeper, as one object: which of them load is the ladder's choice. */
#include "slot.bpf.h"

#include "exec.bpf.h"
#include "life.bpf.h"
#include "loop.bpf.h"
#include "request.bpf.h"
#include "syscalls.bpf.h"
#include "tls_calls.bpf.h"
#if __has_include("gc.bpf.h")
#include "gc.bpf.h"
#endif

char LICENSE[] SEC("license") = "GPL";
