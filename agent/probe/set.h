/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The probe set from inside: shared by the files of this folder that load, pin, count and fold, by
 * nobody else. One process, one thread.
 */
#pragma once

#include "probe/probe.h"

#include "http2_types.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

struct tidegate_bpf;
struct gcwatch;
struct fetch;     /* records.c */
struct reconcile; /* reconcile.c */

/* Process of a slot that belongs to no thread: the keeper's own, for what it has to count. */
#define LEDGER_TGID 0xffffffffu

#define PROBE_LINKS      256 /* perf uprobes need one a place */
#define PROBE_PROGRAMS   96
#define PROBE_NAME_BYTES 32
#define PROBE_PATH_BYTES 512

enum probe_tier { TIER_FENTRY, TIER_TP_BTF, TIER_RAW_TP, TIER_TRACEPOINT, TIERS };

enum probe_report_id {
	REPORT_SYSCALLS,
	REPORT_LOOP,
	REPORT_REQUESTS,
	REPORT_FORK,
	REPORT_GC,
	REPORT_TLS,
	REPORT_PIN,
	REPORTS
};

struct probe_link {
	char name[PROBE_NAME_BYTES];
	struct bpf_link *link; /* NULL: adopted, only fd */
	int fd;
};

struct probe_program {
	char name[PROBE_NAME_BYTES];
	int fd; /* as with the maps: owned with owns_fds, else the skeleton's */
};

struct probe_set {
	struct tidegate_bpf *skel; /* only while they are loaded and attached */
	bool owns_fds;             /* of maps and programs */
	bool is_adopted, is_pinned, has_gc, has_tls, has_fork;
	bool has_leaks_to_find; /* after adoption: slots that are neither used nor free */
	unsigned int threads, gateways, upstreams;
	enum probe_tier tier;
	int slots_fd, retired_fd, connections_fd, bss_fd, gc_settings_fd, gc_calibrations_fd,
		records_fd, notices_fd;
	int upstreams_fd, upstream_indices_fd;
	int http2_connections_fd, http2_streams_fd;
	int tls_ties_fd, tls_calls_fd;
	void *bss;
	size_t bss_bytes;
	struct control *control;        /* inside bss */
	struct http2_control *http2;    /* too */
	struct slot *slots[SLOTS_MOST]; /* mapped when they are first used */
	bool is_used[SLOTS_MOST];
	bool is_leaked[SLOTS_MOST];
	struct bank *banks[GATEWAYS][2];
	uint64_t ring_seen; /* what the kernel took up to here is known */
	uint64_t ports[65536 / 64];
	struct probe_link links[PROBE_LINKS];
	size_t link_count;
	struct probe_program programs[PROBE_PROGRAMS];
	size_t program_count;
	struct gcwatch *gc_watch; /* NULL: without has_gc */
	struct sampler *sampler;
	struct ring_buffer *ring, *notices;
	struct fetch *fetch;
	struct reconcile *reconcile;
	bool is_query_wanted;
	struct probe_report reports[REPORTS];
	struct probe_lost lost[LOST_REASONS + 1];
	char pin_path[PROBE_PATH_BYTES]; /* <pin_dir>/<layout hash>; "" */
};

/* ---- ladder.c ---- */

/* Loads and attaches by the first rung that works; fills skel, links, reports. */
int ladder_climb(struct probe_set *set, const struct probe_options *options, struct err *e);
const char *ladder_tier_name(enum probe_tier tier);
void ladder_report(struct probe_set *set, enum probe_report_id id, enum probe_state state,
		   const char *how, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Reports of a set that was adopted as it stands. */
void ladder_report_adopted(struct probe_set *set);

/* ---- layout.c: what is filled in before load ---- */

/* Only there, so that the object's bytes are in the program once. NULL and errno. */
struct tidegate_bpf *layout_open(void);
int layout_fill(struct tidegate_bpf *skel, const struct probe_options *options,
		unsigned int gateways, bool *ret_has_btf);
/* Names the pins: everything that must be equal for an adoption. */
uint64_t layout_hash(const struct probe_options *options, unsigned int gateways);

/* ---- patterns.c: how health checks and methods look on the wire ---- */

/* What may change while programs run. */
void patterns_fill(struct probe_set *set, const struct probe_options *options);
/* Methods of HTTP/2's literals: [0] plain, [1] in Huffman's code. words must be zero. */
void patterns_methods(uint64_t words[2][16]);

/* ---- streams.c: what HTTP/2 connections leave ---- */

/* A connection ended without a close; number 0: it was HTTP/1. */
void streams_forget(struct probe_set *set, uint32_t number);
/* Removes streams without a connection, if there may be any. */
void streams_sweep(struct probe_set *set);

/* ---- cells.c: mappings ---- */

/* Offset of struct control in .bss. */
size_t cells_control_offset(void);
int cells_map_control(struct probe_set *set);
/* NULL: out of memory. */
struct slot *cells_slot(struct probe_set *set, unsigned int index);
struct bank *cells_bank(struct probe_set *set, unsigned int gateway, unsigned int which);
void cells_unmap(struct probe_set *set);
void cells_add(struct cells *sum, const struct cells *more);

/* ---- slots.c ---- */

void slots_init(struct probe_set *set); /* fresh maps: all slots into the ring */
int slots_adopt(struct probe_set *set);
void slots_discover(struct probe_set *set); /* what the kernel took since */
/* A live slot of a process, its first thread's if that is watched; NULL. */
const struct slot *slots_of_process(struct probe_set *set, uint32_t tgid);
void slots_find_leaks(struct probe_set *set);
/* Ends the watching of this process; what it counted belongs to nobody. */
void slots_discard(struct probe_set *set, uint32_t tgid);
void slots_release(struct probe_set *set, unsigned int index);
/* A slot that is as one of an ended thread, so that the next fold adds it to the gateway's bank. NULL:
 * there is none left. */
struct slot *slots_ledger(struct probe_set *set, unsigned int gateway);

/* ---- retire.c ---- */

/* All but gateway, generation and state becomes 0. */
void slot_empty(struct slot *slot);

/* Folds an ended slot into the bank that does not count, makes that one count, and empties the
 * slot. Pure: memory only. May die between any two of its RETIRE_STEPS stores and be run again from
 * the start; `steps` (NULL: all) stops it after so many, for tests. True when it came to the end. */
#define RETIRE_STEPS 8
bool retire_slot(struct bank *const banks[2], uint32_t *active, struct slot *slot, uint32_t index,
		 unsigned int *steps);

/* How a connection's pending requests are counted. */
enum retire_as {
	RETIRE_UNCOUNTED,
	RETIRE_LOST,
	RETIRE_ABORTED,
	RETIRE_UPSTREAM, /* neither they nor the connection count anywhere */
};

/* Counts the end of one connection and what was pending there, by intent (types.h). */
void retire_connection_begin(struct slot *slot, uint64_t key, uint32_t pending, enum retire_as as,
			     uint64_t now_ns);
void retire_connection_apply(struct slot *slot);
void retire_connection_end(struct slot *slot);

/* Deletes the connections of a process whose last slot this is. */
void retire_connections(struct probe_set *set, struct slot *slot, uint64_t now_ns);
/* Ends one of a process that lives on, counted in a ledger and as LOST_UNSEEN_CLOSE. */
void retire_unseen(struct probe_set *set, struct slot *ledger, uint64_t key,
		   const struct connection *c, uint64_t now_ns);
/* After a heartbeat gap: connections were not followed, nothing about them is known any more. */
void retire_all_connections(struct probe_set *set, uint64_t now_ns);

/* ---- reconcile.c: descriptors that ended without a close ---- */

/* Looks at some connections; ends those that were found without a socket at an earlier look. */
void reconcile_tick(struct probe_set *set, uint64_t now_ns);
struct reconcile *reconcile_new(void);
struct reconcile *reconcile_free(struct reconcile *r);

/* ---- records.c ---- */

/* Maps the ring buffers. */
int records_open(struct probe_set *set);

/* ---- upstreams.c ---- */

/* Number of the record of the address that a TCP socket is connected to, made if there is none.
 * -ENOENT: it is no such socket. */
int upstreams_of_socket(struct probe_set *set, unsigned int gateway, int fd);

/* ---- pins.c ---- */

/* -EOPNOTSUPP with the reason in e: no bpffs there. */
/* Descriptors of all maps: own ones instead of the object's; closed. */
int pins_dup_maps(struct probe_set *set);
void pins_close_maps(struct probe_set *set);
int pins_prepare(const char *pin_dir, struct err *e);
int pins_adopt(struct probe_set *set, uint64_t maps_id);
int pins_write(struct probe_set *set, struct err *e);
int pins_remove(const char *dir);
/* Removes what lies beside the set's own path. */
void pins_remove_others(const char *pin_dir, const char *own);

/* ---- gc.c ---- */

/* Chooses how uprobes attach, and tells the gc_ programs; before load. -ENOTSUP. */
int gc_prepare(struct bpf_object *object, struct err *e);
/* enum uprobe_how; how the programs of uprobes were loaded. */
unsigned int gc_uprobe_how(const struct probe_set *set);
/* "uprobe_multi", "perf"; "none" before either was chosen. */
const char *gc_how(const struct probe_set *set);

/* ---- tls.c ---- */

/* What programs remember of a process that has ended; 0: of all. */
void tls_forget(struct probe_set *set, uint32_t tgid);
/* The object that was tied to a connection (connection_types.h). */
void tls_untie(struct probe_set *set, uint32_t tgid, uint64_t object);

/* ---- for gc.c ---- */

/* -ENOENT: not loaded. */
int probe_program_fd(const struct probe_set *set, const char *name);
/* Takes a link made elsewhere: pinned with the rest under this name. Takes fd, also on failure. */
int probe_add_link(struct probe_set *set, const char *name, int fd);
/* Closes it and removes its pin; no link of that name is fine. */
void probe_remove_link(struct probe_set *set, const char *name);
bool probe_has_link(const struct probe_set *set, const char *name);
