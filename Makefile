# SPDX-License-Identifier: Apache-2.0
# One non-recursive Makefile; everything it makes lies in build/.
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION := 0.1.0
CC := gcc
CLANG := $(or $(shell command -v clang-14 2>/dev/null),clang)
BPFTOOL := $(firstword $(wildcard /usr/sbin/bpftool /usr/bin/bpftool) bpftool)
PREFIX ?= /usr
DESTDIR ?=
SANITIZE ?=

empty :=
comma := ,
B := build$(if $(SANITIZE),/sanitize-$(subst $(comma),-,$(SANITIZE)))
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-8s %s\n' '$(1)' '$(2)')

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings \
	-Wcast-qual -Wundef -Wvla -Wformat=2 -Wno-format-zero-length -Wimplicit-fallthrough -fno-common
HARDEN := $(if $(SANITIZE),,-D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection)
SANFLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
# Fences order what other processes and the kernel read: no thread's business, and gcc warns of them.
SANFLAGS += $(if $(filter thread,$(SANITIZE)),-Wno-tsan -Wno-unknown-warning-option)
PKGS := libbpf libuv libmicrohttpd jansson libcyaml yaml-0.1 libprotobuf-c nanomsg libzstd \
	capstone libcap libseccomp lua5.4 liblzma ncursesw sqlite3 gnutls
PKG_CFLAGS = $(shell pkg-config --cflags-only-I $(PKGS) | sed 's/-I/-isystem /g')
PKG_LIBS = $(shell pkg-config --libs $(PKGS))
CFLAGS := -O2 -g
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DTIDEGATE_VERSION='"$(VERSION)"' -Iagent -Iproto -Ibpf \
	-I$(B)/gen $(PKG_CFLAGS) $(WARN) $(HARDEN) $(SANFLAGS) -fPIE -MMD -MP $(CFLAGS)
# Loaded when it is needed (agent/probe/disassembler.h): under the name that is installed with the header.
CAPSTONE = $(shell readelf -d "$$(pkg-config --variable=libdir capstone)/libcapstone.so" | \
	sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now,--as-needed $(SANFLAGS) $(LDFLAGS)

# ---- sources: a folder a stage -------------------------------------------------------------
STAGES := base config probe segment bus fleet outlet scale drain cmd
SRCS := $(foreach s,$(STAGES),$(sort $(wildcard agent/$(s)/*.c))) $(sort $(wildcard proto/*.c))
OBJS := $(SRCS:%.c=$(B)/obj/%.o)
GEN_HEADERS := $(B)/gen/tidegate.pb-c.h $(B)/gen/tidegate.skel.h
GEN_OBJS := $(B)/obj/gen/tidegate.pb-c.o $(B)/obj/gen/dictionaries.o
BPF_SRCS := $(sort $(wildcard bpf/*.bpf.c))
BPF_OBJS := $(BPF_SRCS:bpf/%.bpf.c=$(B)/bpf/%.o)
LIB := $(B)/libtidegate.a

GATE := $(B)/libtidegate.so.1
# A distribution need not have both.
LUA_VERSIONS := $(shell for v in 5.3 5.4; do pkg-config --exists lua$$v && echo $$v; done)
PUC := $(LUA_VERSIONS:%=$(B)/puc/%/tidegate.so)

.PHONY: all
all: $(B)/tidegate $(GATE) $(PUC)

# One clear line instead of the first of many errors.
$(B)/.tools:
	@mkdir -p $(@D)
	@for t in $(CC) $(CLANG) $(BPFTOOL) protoc-c pkg-config; do command -v $$t >/dev/null || \
		{ echo "$$t is missing: run \`make deps\` as root" >&2; exit 1; }; done
	@for p in $(PKGS); do pkg-config --exists $$p || \
		{ echo "the library $$p is missing: run \`make deps\` as root" >&2; exit 1; }; done
	@touch $@

# ---- what a distribution must bring: packaging/deps says what and why ------------------------
# $(B)/.deps-check is what make check needs, .deps-demo what make demo does; instant when present.
.PHONY: deps
deps: $(B)/.deps-all
$(B)/.deps-%: packaging/deps packaging/install-deps
	$(call say,DEPS,$*)
	@mkdir -p $(@D)
	$(Q)packaging/install-deps $(if $(filter all,$*),,build run $*)
	@touch $@

$(B)/obj/agent/probe/disassembler.o $(B)/fuzz/obj/agent/probe/disassembler.o: \
	CFLAGS += -DCAPSTONE_SONAME='"$(CAPSTONE)"'

$(B)/tidegate: $(B)/obj/agent/main.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(B)/obj/agent/main.o $(LIB) $(PKG_LIBS) -lm

$(LIB): $(OBJS) $(GEN_OBJS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

# libtidegate.so, which gateways load: nothing but libc, only tidegate.h is seen.
GATE_SRCS := $(sort $(wildcard lua/library/*.c)) proto/histogram.c
GATE_OBJS := $(GATE_SRCS:%.c=$(B)/gate/%.o)
$(GATE): $(GATE_OBJS) lua/library/exports.map
	$(call say,LINK,$@)
	$(Q)$(CC) -shared -Wl,-soname,libtidegate.so.1 -Wl,--version-script,lua/library/exports.map \
		-Wl,-z,relro,-z,now,--as-needed $(SANFLAGS) $(LDFLAGS) -o $@ $(GATE_OBJS) -lm -pthread
	$(Q)ln -sf libtidegate.so.1 $(B)/libtidegate.so
$(B)/gate/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Iproto $(WARN) $(HARDEN) $(SANFLAGS) -fPIC \
		-fvisibility=hidden -pthread -MMD -MP $(CFLAGS) -c -o $@ $<

# require "tidegate" of HAProxy's Lua, with the library inside: one file to install a version.
$(PUC): $(B)/puc/%/tidegate.so: lua/puc/tidegate.c lua/puc/exports.map $(GATE_OBJS)
	$(call say,LUA,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Ilua/library \
		$(patsubst -I%,-isystem %,$(shell pkg-config --cflags-only-I lua$*)) $(WARN) $(HARDEN) \
		$(SANFLAGS) -fPIC -fvisibility=hidden -pthread -MMD -MP $(CFLAGS) -shared \
		-Wl,--version-script,lua/puc/exports.map -Wl,-z,relro,-z,now,--as-needed $(LDFLAGS) \
		-o $@ $< $(GATE_OBJS) -lm

$(B)/obj/%.o: %.c | $(GEN_HEADERS)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# What version tells; fixed by the commit and the installed libraries, not by time or place.
$(B)/.describe: FORCE
	@mkdir -p $(@D)
	@d=$$(git describe --always --dirty --tags 2>/dev/null || echo release); \
	[ "$$d" = "$$(cat $@ 2>/dev/null)" ] || echo "$$d" >$@
LIBRARIES = $(foreach p,$(PKGS),$(p)-$(shell pkg-config --modversion $(p)))
$(B)/obj/agent/cmd/version.o: $(B)/.describe
$(B)/obj/agent/cmd/version.o: ALL_CFLAGS += -DTIDEGATE_BUILD='"$(shell cat $(B)/.describe)"' \
	-DTIDEGATE_LIBRARIES='"$(LIBRARIES)"'
.PHONY: FORCE
FORCE:

# Generated code is not ours to warn about.
$(B)/obj/gen/%.o: $(B)/gen/%.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -w -c -o $@ $<

$(B)/gen/tidegate.pb-c.h: $(B)/gen/tidegate.pb-c.c ;
$(B)/gen/tidegate.pb-c.c: proto/tidegate.proto
	$(call say,PROTO,$<)
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=proto --c_out=$(B)/gen $<

# All dictionaries of frames, compiled in.
DICTIONARIES := $(sort $(wildcard proto/frames.*.dict))
$(B)/gen/dictionaries.c: $(DICTIONARIES) Makefile
	$(call say,DICT,$@)
	@mkdir -p $(@D)
	$(Q){ echo '#include "bus/frame_dictionary.h"'; \
		for f in $(DICTIONARIES); do id=$${f#*frames.}; id=$${id%.dict}; \
			echo "static const uint8_t file_$$id[] = {"; \
			od -An -v -tu1 $$f | sed 's/[0-9]\{1,\}/&,/g'; echo '};'; done; \
		echo 'const struct frame_dictionary_file frame_dictionary_files[] = {'; \
		for f in $(DICTIONARIES); do id=$${f#*frames.}; id=$${id%.dict}; \
			echo "{$$id, file_$$id, sizeof(file_$$id)},"; done; \
		echo '{0, 0, 0}};'; } >$@

$(OBJS) $(B)/gen/tidegate.pb-c.c $(BPF_OBJS): | $(B)/.tools

# ---- BPF: CO-RE against bpf/kernel.h, one linked object, one skeleton ------------------------
BPF_CFLAGS := -target bpf -mcpu=v3 -O2 -g -D__TARGET_ARCH_x86 -Ibpf -Iproto -Wall -Werror \
	-isystem /usr/include/$(shell uname -m)-linux-gnu

$(B)/bpf/%.o: bpf/%.bpf.c $(wildcard bpf/*.h) $(wildcard proto/*.h) proto/metrics.def
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c -o $@ $<

$(B)/bpf/linked/tidegate.o: $(BPF_OBJS)
	$(call say,BPFLINK,$@)
	@mkdir -p $(@D)
	$(Q)$(BPFTOOL) gen object $@ $^

$(B)/gen/tidegate.skel.h: $(B)/bpf/linked/tidegate.o
	$(call say,SKEL,$@)
	@mkdir -p $(@D)
	$(Q)$(BPFTOOL) gen skeleton $< name tidegate_bpf >$@

# ---- tests: every one speaks TAP, prove counts them ------------------------------------------
UNIT_SRCS := $(sort $(wildcard tests/unit/*.c))
UNIT_BINS := $(UNIT_SRCS:tests/unit/%.c=$(B)/tests/unit/%.t)

$(B)/tests/unit/%.t: tests/unit/%.c $(LIB)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -o $@ $< $(ALL_LDFLAGS) $(LIB) $(TEST_LIBS) $(PKG_LIBS) -lcmocka \
		-lm
# Those that write as gateways do.
USES_GATE := $(B)/tests/unit/gather.t $(B)/tests/unit/gather_hostile.t \
	$(B)/tests/unit/gateway_library.t $(B)/tests/bench/gather.b $(B)/tests/chaos/kills.t
$(USES_GATE): $(GATE)
$(USES_GATE): ALL_CFLAGS += -Ilua/library
$(USES_GATE): TEST_LIBS := $(GATE) -Wl,-rpath,$(abspath $(B))

-include $(OBJS:.o=.d) $(GATE_OBJS:.o=.d) $(PUC:.so=.d) $(B)/obj/agent/main.d $(UNIT_BINS:.t=.d)

PROVE := prove --timer --failures $(if $(V),-v)
export BUILD := $(abspath $(B))

LUA_TESTS := $(sort $(wildcard tests/lua/*.t tests/lua/*.lua))
BPF_BINS := $(patsubst tests/bpf/%.c,$(B)/tests/bpf/%.t,\
	$(sort $(filter-out %/workload.c %/examine.c,$(wildcard tests/bpf/*.c))))
BPF_TESTS := $(BPF_BINS) $(sort $(wildcard tests/bpf/*.t))
FLOW_TESTS := $(sort $(wildcard tests/flow/*.t))
VM_TESTS := $(sort $(wildcard tests/vm/*.t))
LINT_TESTS := $(addprefix tests/lint/,layers shape spdx commits format shell lua)

# What the BPF tests watch: static, so that no library makes calls of its own.
$(B)/tests/bpf/workload: tests/bpf/workload.c
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE $(WARN) -O2 -static -o $@ $<
$(B)/tests/bpf/count.t: $(B)/tests/bpf/workload

# What the finder says of a file, for finder-corpus.t.
$(B)/tests/bpf/examine: tests/bpf/examine.c $(LIB)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< $(ALL_LDFLAGS) $(LIB) $(PKG_LIBS) -lm

$(B)/tests/bpf/%.t: tests/bpf/%.c $(LIB)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -o $@ $< $(ALL_LDFLAGS) $(LIB) $(PKG_LIBS) -lcmocka -lm

# tests/bench/*.b are scripts, tests/bench/*.c programs; BENCH="…" picks some.
BENCH_BINS := $(patsubst tests/bench/%.c,$(B)/tests/bench/%.b,$(sort $(wildcard tests/bench/*.c)))
BENCH ?= $(sort $(wildcard tests/bench/*.b)) $(BENCH_BINS)
$(B)/tests/bench/%.b: tests/bench/%.c $(LIB)
	$(call say,BENCH,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -Itests/bench -o $@ $(filter %.c,$^) $(ALL_LDFLAGS) $(LIB) \
		$(TEST_LIBS) $(PKG_LIBS) -lm

$(B)/tests/bench/history.b: tests/bench/load/standard.c

# What other exporters would send, for the bench that compares bytes.
$(B)/tests/bench/wire.b: tests/bench/wire/peers.c tests/bench/wire/peers.h tests/recording.h
$(B)/tests/bench/wire.b: TEST_LIBS := -lsnappy -lz

# What benches run beside the aggregator and its peer: simulators of many agents.
LOAD_BINS := $(B)/tests/bench/load/agents $(B)/tests/bench/load/remote $(B)/tests/bench/load/crowd
LOAD_PARTS := $(filter-out $(LOAD_BINS:$(B)/%=%.c),$(wildcard tests/bench/load/*.c))
$(LOAD_BINS): $(B)/tests/bench/load/%: tests/bench/load/%.c $(LOAD_PARTS) \
		$(wildcard tests/bench/load/*.h) $(LIB)
	$(call say,BENCH,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(filter %.c,$^) $(ALL_LDFLAGS) $(LIB) $(PKG_LIBS) -lsnappy -lm

# Processes that are killed at random: CHAOS_KILLS of them in make chaos, 100 in make check. Scripts
# (tests/chaos/*.t) run in make chaos alone; tests/flow/chaos-of-the-bus.t is their short form.
CHAOS_KILLS ?= 1000
CHAOS_BINS := $(patsubst tests/chaos/%.c,$(B)/tests/chaos/%.t,\
	$(sort $(filter-out %/feed.c %/backlog.c %/forge.c %/clock.c,$(wildcard tests/chaos/*.c))))
CHAOS_TOOLS := $(addprefix $(B)/tests/chaos/,feed backlog forge clock.so)
CHAOS_SCRIPTS := $(sort $(wildcard tests/chaos/*.t))
$(B)/tests/chaos/feed: tests/chaos/feed.c $(GATE)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Ilua/library -o $@ $< $(ALL_LDFLAGS) $(GATE) -Wl,-rpath,$(abspath $(B))
$(B)/tests/chaos/backlog: tests/chaos/backlog.c $(LIB)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< $(ALL_LDFLAGS) $(LIB) $(PKG_LIBS) -lm
$(B)/tests/chaos/%.t: tests/chaos/%.c $(LIB)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -o $@ $< $(ALL_LDFLAGS) $(LIB) $(TEST_LIBS) $(PKG_LIBS) -lm
# Not sanitized: it comes before the sanitizers' own library.
$(B)/tests/chaos/clock.so: tests/chaos/clock.c
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE $(WARN) -O2 -fPIC -shared -o $@ $< -ldl
$(B)/tests/chaos/forge: tests/chaos/forge.c $(LIB)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< $(ALL_LDFLAGS) $(LIB) $(PKG_LIBS) -lm
.PHONY: chaos
chaos: all $(CHAOS_BINS) $(CHAOS_TOOLS)
	$(Q)set -e; for t in $(CHAOS_BINS) $(CHAOS_SCRIPTS); do CHAOS_KILLS=$(CHAOS_KILLS) $$t; done

# Packages come first, in a make of their own: this one has looked for tools before they were there.
.PHONY: check check-all check-unit check-lua check-bpf check-flow check-hostile check-vm
check: $(B)/.deps-check
	+$(Q)$(MAKE) --no-print-directory check-all
check-all: all $(UNIT_BINS) $(CHAOS_BINS) $(CHAOS_TOOLS) $(BPF_BINS) $(B)/tests/bpf/examine
	$(Q)VM_SUITE=counts tests/run $(LINT_TESTS) $(UNIT_BINS) $(CHAOS_BINS) $(LUA_TESTS) $(BPF_TESTS) \
		$(FLOW_TESTS) $(VM_TESTS)
check-unit: $(UNIT_BINS)
	$(Q)tests/run $(UNIT_BINS)
check-lua: all
	$(Q)tests/run $(LUA_TESTS)
check-bpf: all $(BPF_BINS) $(B)/tests/bpf/examine
	$(Q)tests/run $(BPF_TESTS)
check-flow: all $(CHAOS_TOOLS)
	$(Q)tests/run $(FLOW_TESTS)
# What strangers and hostile agents send, to an aggregator with AddressSanitizer.
ASAN_BUILD := build/sanitize-address-undefined
check-hostile: all $(CHAOS_TOOLS)
	+$(Q)$(MAKE) --no-print-directory SANITIZE=address,undefined $(ASAN_BUILD)/tidegate
	$(Q)TIDEGATE_HOSTILE=$(abspath $(ASAN_BUILD))/tidegate tests/run \
		tests/flow/hostile-agents-change-nothing.t
	$(Q)BUILD=$(abspath $(ASAN_BUILD)) tests/run tests/flow/bus-survives-hostile-peers.t \
		tests/flow/tls-strangers-are-refused.t
check-vm: all $(BPF_BINS)
	$(Q)TEST_TIMEOUT=1800 tests/run $(VM_TESTS)

# ---- the product, and what it costs -------------------------------------------------------------
.PHONY: demo bench
demo: $(B)/.deps-demo
	+$(Q)$(MAKE) --no-print-directory all
	$(Q)packaging/examples/demo/demo
bench: $(B)/.deps-bench
	+$(Q)$(MAKE) --no-print-directory bench-all
bench-all: all $(BENCH_BINS) $(LOAD_BINS) $(CHAOS_TOOLS)
	$(Q)tests/bench/run $(BENCH)

# Frames of real gateways for benches and the dictionary; the recording is kept in tests/data/frames.
.PHONY: record
record: $(B)/.deps-check $(B)/tidegate
	$(Q)tests/bench/record

# What the frame codec learnt from them. The released files never change: a better training is another
# version beside them.
TRAIN := $(B)/tests/train/train
TRAINED_ON := $(addprefix tests/data/frames/1/,nginx.spool haproxy.spool caddy.spool)
$(TRAIN): tests/train/train.c tests/recording.h $(LIB)
	$(call say,TRAIN,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -o $@ $< $(ALL_LDFLAGS) $(LIB) $(PKG_LIBS) -lm
.PHONY: dictionary
dictionary: $(TRAIN)
	@mkdir -p $(B)/dictionary
	$(Q)$(TRAIN) codes $(TRAINED_ON) >$(B)/dictionary/frame_code.def
	$(Q)$(TRAIN) dictionary 1 $(TRAINED_ON) >$(B)/dictionary/frames.1.dict
	$(Q)for f in agent/bus/frame_code.def proto/frames.1.dict; do cmp -s $$f $(B)/dictionary/$${f##*/} && \
		echo "$$f is what training gives" || \
		echo "$(B)/dictionary/$${f##*/} is not $$f: unless that is released, copy it"; done

# ---- lint: the fast part is in check; analyze is the slow one ---------------------------------
.PHONY: lint analyze format
lint: $(GEN_HEADERS)
	$(Q)tests/run $(LINT_TESTS) tests/lint/cppcheck tests/lint/tidy
lint analyze: export TIDEGATE_LINT_CFLAGS = $(ALL_CFLAGS)
analyze: $(GEN_HEADERS)
	$(Q)tests/run tests/lint/analyze
format:
	$(Q)tests/lint/format --write

# ---- fuzzing: tests/fuzz/NAME.c is one libFuzzer entry over the whole library, built with clang
# and sanitizers; seeds lie in tests/fuzz/seeds/NAME/. FUZZ="segment frame" picks some.
FUZZ ?= $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/*.c)))
FUZZ_SECONDS ?= 20
FUZZ_SAN := address,undefined
FUZZ_BINS := $(FUZZ:%=$(B)/fuzz/%)
FUZZ_OBJS := $(SRCS:%.c=$(B)/fuzz/obj/%.o) $(GEN_OBJS:$(B)/obj/%=$(B)/fuzz/obj/%)
FUZZ_CFLAGS = $(filter-out $(HARDEN) $(SANFLAGS),$(ALL_CFLAGS)) -O1 -fno-omit-frame-pointer \
	-fno-sanitize-recover=all -w # warnings are the normal build's business

$(B)/fuzz/obj/%.o: %.c | $(GEN_HEADERS)
	$(call say,FUZZCC,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link,$(FUZZ_SAN) -c -o $@ $<

$(B)/fuzz/obj/gen/%.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) -w -fsanitize=fuzzer-no-link,$(FUZZ_SAN) -c -o $@ $<

$(B)/fuzz/libtidegate.a: $(FUZZ_OBJS)
	$(Q)rm -f $@ && ar rcs $@ $^

$(FUZZ_BINS): $(B)/fuzz/%: tests/fuzz/%.c $(B)/fuzz/libtidegate.a
	$(call say,FUZZ,$@)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer,$(FUZZ_SAN) -o $@ $< $(B)/fuzz/libtidegate.a \
		$(PKG_LIBS) -lm

.PHONY: fuzz
fuzz: $(FUZZ_BINS)
	$(Q)FUZZ_SECONDS=$(FUZZ_SECONDS) $(PROVE) --exec tests/fuzz/run $(FUZZ_BINS)

-include $(FUZZ_OBJS:.o=.d)

# ---- install ----------------------------------------------------------------------------------
MAN_PAGES := $(addprefix $(B)/man/,tidegate.8 libtidegate.3 tidegate-segment.5)
$(B)/man/tidegate.8: $(B)/man/%: packaging/man/%.in $(B)/tidegate
	$(call say,MAN,$@)
	@mkdir -p $(@D)
	$(Q)$(B)/tidegate config --man >$@.options
	$(Q)sed -e 's/@VERSION@/$(VERSION)/' -e '/@OPTIONS@/{r $@.options' -e 'd;}' $< >$@
	@rm -f $@.options

$(B)/man/libtidegate.3: packaging/man/libtidegate.3.in packaging/examples/c/orders.c
	$(call say,MAN,$@)
	@mkdir -p $(@D)
	$(Q)sed -e 1d -e 's/\\/\\e/g' packaging/examples/c/orders.c >$@.example
	$(Q)sed -e 's/@VERSION@/$(VERSION)/' -e '/@EXAMPLE@/{r $@.example' -e 'd;}' $< >$@
	@rm -f $@.example

# Its tables come from the header; the compiler says whether each place in them is right.
FIELDS := packaging/man/segment-fields.awk
SEGMENT_STRUCTS := segment_header segment_gateway segment_entry
segment_value = $(shell sed -n 's/^\#define SEGMENT_$(1) *\([0-9a-fx]*\).*/\1/p' proto/segment.h)
$(B)/man/tidegate-segment.5: packaging/man/tidegate-segment.5.in proto/segment.h $(FIELDS)
	$(call say,MAN,$@)
	@mkdir -p $(@D)
	$(Q)awk -v as=assert -f $(FIELDS) proto/segment.h >$@.c
	$(Q)$(CC) -std=gnu17 -Iproto -fsyntax-only $@.c
	$(Q)for s in $(SEGMENT_STRUCTS); do \
		awk -v as=man -v only=$$s -f $(FIELDS) proto/segment.h >$@.$$s || exit 1; done
	$(Q)sed -e 's/@VERSION@/$(VERSION)/' $(foreach v,VERSION MAGIC ENDIAN,\
		-e 's/@SEGMENT_$(v)@/$(call segment_value,$(v))/') \
		$(foreach s,$(SEGMENT_STRUCTS),-e '/^@$(s)@/{r $@.$(s)' -e 'd;}') $< >$@
	@rm -f $@.*

# Where libraries go: LIBDIR is lib/x86_64-linux-gnu on Debian, lib64 on Fedora.
LIBDIR ?= $(PREFIX)/lib
.PHONY: install install-library
install: all $(MAN_PAGES) install-library
	install -D -m 755 $(B)/tidegate $(DESTDIR)$(PREFIX)/bin/tidegate
	install -d $(DESTDIR)/etc/tidegate/hooks.d
	for f in $$(find lua -name '*.lua' ! -path 'lua/resty/*'); do \
		install -D -m 644 $$f $(DESTDIR)$(PREFIX)/share/tidegate/$$f || exit 1; done
	for f in $$(find packaging/systemd -type f ! -name '*.md' 2>/dev/null); do \
		install -D -m 644 $$f $(DESTDIR)/usr/lib/systemd/system/$${f##*/} || exit 1; done
	install -D -m 644 $(B)/man/tidegate.8 $(DESTDIR)$(PREFIX)/share/man/man8/tidegate.8
	install -D -m 644 packaging/completions/tidegate.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/tidegate

# What gateways load: no agent is needed beside it.
install-library: $(GATE) $(PUC) $(MAN_PAGES)
	install -D -m 644 $(GATE) $(DESTDIR)$(LIBDIR)/libtidegate.so.1
	ln -sf libtidegate.so.1 $(DESTDIR)$(LIBDIR)/libtidegate.so
	install -D -m 644 lua/library/tidegate.h $(DESTDIR)$(PREFIX)/include/tidegate.h
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' \
		lua/library/tidegate.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/tidegate.pc
	for f in $$(cd lua && find resty -name '*.lua'); do \
		install -D -m 644 lua/$$f $(DESTDIR)$(PREFIX)/share/lua/5.1/$$f || exit 1; done
	for v in $(LUA_VERSIONS); do \
		install -D -m 644 $(B)/puc/$$v/tidegate.so $(DESTDIR)$(LIBDIR)/lua/$$v/tidegate.so || exit 1; done
	install -D -m 644 $(B)/man/libtidegate.3 $(DESTDIR)$(PREFIX)/share/man/man3/libtidegate.3
	install -D -m 644 $(B)/man/tidegate-segment.5 \
		$(DESTDIR)$(PREFIX)/share/man/man5/tidegate-segment.5

.PHONY: help
help:
	@sed -n 's/^#: //p' $(MAKEFILE_LIST)

#: make                 builds build/tidegate
#: make deps            installs what packaging/deps names (root)
#: make demo            shows it all on a real gateway; KEEP=1 leaves it running
#: make check           installs what is missing, builds, runs all tests and counts them
#: make check-unit      … one kind: check-unit check-lua check-bpf check-flow check-vm
#: make check-hostile   what strangers send, to an aggregator with AddressSanitizer
#: make bench           measures the budgets, writes build/bench.json
#: make record          records frames of real gateways into tests/data/frames
#: make dictionary      trains the frame codec on tests/data/frames and compares
#: make chaos           kills CHAOS_KILLS (1000) processes of the memory and of the bus, and adds up
#: make fuzz            runs each fuzzer for FUZZ_SECONDS (20)
#: make lint            all linters; make analyze: gcc -fanalyzer (slow)
#: make format          clang-format on all C files
#: make install         into DESTDIR, PREFIX (/usr), LIBDIR; install-library: only what gateways load
#: make clean           removes build/
#: V=1 shows commands; CC=clang-14; SANITIZE=address,undefined or thread builds beside the rest

.PHONY: clean
clean:
	rm -rf build
