# parley: `make` builds build/release/parley; `make check` builds with sanitizers and runs every test (CONTRIBUTING.md).
MODE ?= release
B := build/$(MODE)
CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
PKGS := libczmq libzmq libwebsockets libprotobuf-c jansson libjwt libsodium libuv raft
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Werror
HARDEN := -fstack-protector-strong -fPIE
CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2
CFLAGS_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -g -fsanitize=thread
CFLAGS_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=address,undefined
CPPFLAGS := -std=c11 -D_GNU_SOURCE -I. -I$(B)/proto $(shell pkg-config --cflags $(PKGS))
CFLAGS := $(CFLAGS_$(MODE)) $(HARDEN) $(WARN)
LDLIBS := $(shell pkg-config --libs $(PKGS)) -lleveldb -lpthread -lm

PROTOS := client mesh store
PROTO_H := $(PROTOS:%=$(B)/proto/%.pb-c.h)
PROTO_O := $(PROTOS:%=$(B)/proto/%.pb-c.o)
LIB_C := $(filter-out client/main.c,$(wildcard mesh/*.c edge/*.c router/*.c store/*.c client/*.c))
LIB_O := $(LIB_C:%.c=$(B)/%.o)
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/test_*.c))
SIM_O := $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/*.c))
STORY := $(patsubst tests/story/%.c,$(B)/tests/story/%,$(wildcard tests/story/test_*.c))
RANDOM_T := $(B)/tests/random/random
RANDOM_O := $(patsubst %.c,$(B)/%.o,$(wildcard tests/random/*.c))

all: $(B)/parley

$(B)/proto/%.pb-c.c $(B)/proto/%.pb-c.h &: proto/%.proto
	@mkdir -p $(B)/proto
	protoc-c --proto_path=proto --c_out=$(B)/proto $<

$(B)/proto/%.pb-c.o: $(B)/proto/%.pb-c.c
	$(CC) $(CPPFLAGS) $(CFLAGS_$(MODE)) $(HARDEN) -w -c -o $@ $<

$(B)/%.o: %.c | $(PROTO_H)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/libparley.a: $(LIB_O) $(PROTO_O)
	@rm -f $@
	ar rcs $@ $^

$(B)/parley: $(B)/client/main.o $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS)

$(B)/tests/unit/%: $(B)/tests/unit/%.o $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -o $@ $^ -lcmocka $(LDLIBS)

# the simulator brings its own store_kv: its objects stand before the archive, so store/kv.o is never pulled in
$(B)/tests/story/%: $(B)/tests/story/%.o $(SIM_O) $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -o $@ $^ -lcmocka $(LDLIBS)

$(RANDOM_T): $(RANDOM_O) $(SIM_O) $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS)

build-unit: $(UNIT)
build-story: $(STORY)
build-random: $(RANDOM_T)
build-live build-web: $(B)/parley

# ---- checking: everything under ASan and UBSan, if MODE on the command line does not say otherwise ----
TEST_MODE := $(if $(filter command line,$(origin MODE)),$(MODE),asan)
TEST_B := $(if $(filter command line,$(origin B)),$(B),build/$(TEST_MODE))
RUN := scripts/run-tests.sh

unit story random live web:
	$(MAKE) -s -j2 MODE=$(TEST_MODE) build-$@
	$(RUN) $(TEST_B) $@

fuzz:
	$(MAKE) -s -j2 build-fuzz
	$(RUN) build/fuzz fuzz

# faults without end on hosts of their own, until CHAOS_SECONDS (600) are over; CHAOS_SEED repeats a run's choices
chaos: $(B)/parley
	PARLEY=$(B)/parley node tests/live/chaos.mjs

# from the version before (tests/live/previous) to this one, node by node, under load, and back, or shows that there is no way back
upgrade: $(B)/parley
	PARLEY=$(B)/parley node --test tests/live/long/upgrade.test.mjs

check: check-build
	$(RUN) build/asan lint unit story random live web fuzz

check-build:
	$(MAKE) -s -j2 MODE=asan all build-unit build-story build-random
	$(MAKE) -s -j2 build-fuzz

# what does not fit into the minutes of `check`: data races, uninitialised memory, an hour of seeds and of fuzzing
# test_mesh_link* and test_store_kv* run threads of libzmq and libleveldb, whose locks TSan does not see: left out there
check-long: check-build
	$(MAKE) -s -j2 MODE=tsan build-unit
	$(MAKE) -s -j2 MODE=release build-unit
	UNIT_SKIP="test_mesh_link test_mesh_link_loops test_mesh_link_refused test_store_kv test_store_kv_view" $(RUN) build/tsan unit
	$(RUN) build/release valgrind
	RANDOM_SECONDS=1800 FUZZ_SECONDS=120 CHAOS_SECONDS=120 SURVIVES_SECONDS=60 $(RUN) build/asan lint unit story random live live-long web fuzz

lint:
	scripts/lint.sh

format:
	clang-format -i $(shell git ls-files '*.c' '*.h')

-include tests/fuzz/fuzz.mk tests/bench/bench.mk

# ---- installing ----
PREFIX ?= /usr/local
DESTDIR ?=
UNITDIR ?= $(PREFIX)/lib/systemd/system

install: $(B)/parley
	install -D -m 0755 $(B)/parley $(DESTDIR)$(PREFIX)/bin/parley
	install -d $(DESTDIR)$(PREFIX)/share/parley/web $(DESTDIR)$(UNITDIR)
	install -m 0644 $(wildcard web/*.*) $(DESTDIR)$(PREFIX)/share/parley/web/
	for u in scripts/systemd/*.service; do \
	    sed 's#PREFIX#$(PREFIX)#' $$u > $(DESTDIR)$(UNITDIR)/$$(basename $$u); \
	done

clean:
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
.SECONDARY:
.PHONY: all unit story random live web fuzz chaos upgrade check check-build check-long lint format install clean \
    build-unit build-story build-random build-live build-web
