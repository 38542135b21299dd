# SPDX-License-Identifier: Apache-2.0
# One non-recursive Makefile; everything it makes lies in build/.
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION := 0.1.0
CC := gcc
CLANG := clang-14
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
PKGS := libbpf libuv libmicrohttpd jansson libcyaml yaml-0.1 libprotobuf-c nanomsg libzstd \
	capstone libelf libcap libseccomp lua5.4 sqlite3
PKG_CFLAGS = $(shell pkg-config --cflags-only-I $(PKGS) | sed 's/-I/-isystem /g')
PKG_LIBS = $(shell pkg-config --libs $(PKGS))
CFLAGS := -O2 -g
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DTIDEGATE_VERSION='"$(VERSION)"' -Iagent -Iproto -Ibpf \
	-I$(B)/gen $(PKG_CFLAGS) $(WARN) $(HARDEN) $(SANFLAGS) -fPIE -MMD -MP $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now $(SANFLAGS) $(LDFLAGS)

# ---- sources: a folder a stage -------------------------------------------------------------
STAGES := base config probe segment bus fleet outlet scale drain cmd
SRCS := $(foreach s,$(STAGES),$(sort $(wildcard agent/$(s)/*.c))) $(sort $(wildcard proto/*.c))
OBJS := $(SRCS:%.c=$(B)/obj/%.o)
GEN_HEADERS := $(B)/gen/tidegate.pb-c.h $(B)/gen/tidegate.skel.h
GEN_OBJS := $(B)/obj/gen/tidegate.pb-c.o
BPF_SRCS := $(sort $(wildcard bpf/*.bpf.c))
BPF_OBJS := $(BPF_SRCS:bpf/%.bpf.c=$(B)/bpf/%.o)
LIB := $(B)/libtidegate.a

.PHONY: all
all: $(B)/tidegate

$(B)/tidegate: $(B)/obj/agent/main.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(B)/obj/agent/main.o $(LIB) $(PKG_LIBS) -lm

$(LIB): $(OBJS) $(GEN_OBJS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/obj/%.o: %.c | $(GEN_HEADERS)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

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
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -o $@ $< $(ALL_LDFLAGS) $(LIB) $(PKG_LIBS) -lcmocka -lm

-include $(OBJS:.o=.d) $(B)/obj/agent/main.d $(UNIT_BINS:.t=.d)

PROVE := prove --timer --failures $(if $(V),-v)
export BUILD := $(CURDIR)/$(B)

# ---- fuzzing: tests/fuzz/NAME.c is one libFuzzer entry over the whole library, built with clang
# and sanitizers; seeds lie in tests/fuzz/seeds/NAME/. FUZZ="segment frame" picks some.
FUZZ ?= $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/*.c)))
FUZZ_SECONDS ?= 20
FUZZ_SAN := address,undefined
FUZZ_BINS := $(FUZZ:%=$(B)/fuzz/%)
FUZZ_OBJS := $(SRCS:%.c=$(B)/fuzz/obj/%.o) $(GEN_OBJS:$(B)/obj/%=$(B)/fuzz/obj/%)
FUZZ_CFLAGS = $(filter-out $(HARDEN) $(SANFLAGS),$(ALL_CFLAGS)) -O1 -fno-omit-frame-pointer \
	-fno-sanitize-recover=all

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

.PHONY: clean
clean:
	rm -rf build
