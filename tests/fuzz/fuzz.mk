# Fuzz targets, one for every decoder and every core: `make fuzz` builds them (clang, libFuzzer) and runs
# each for FUZZ_SECONDS from its corpus, `make fuzz-seeds` writes the corpora again after a schema has changed.
FUZZ_SECONDS ?= 7
FUZZ_T := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

ifeq ($(MODE),fuzz)
CFLAGS += -w # warnings are gcc's business in the other builds
build-fuzz: $(FUZZ_T:%=$(B)/tests/fuzz/fuzz_%)
else
build-fuzz:
	$(MAKE) -s MODE=fuzz CC=clang B=build/fuzz build-fuzz
endif

fuzz-run:
	tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS) $(FUZZ_T)

$(B)/tests/fuzz/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/fuzz.o $(B)/tests/sim/kv_mem.o $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$(B)/tests/fuzz/seeds: $(B)/tests/fuzz/seeds.o $(B)/tests/fuzz/seeds_store.o $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS)

fuzz-seeds: $(B)/tests/fuzz/seeds
	mkdir -p tests/fuzz/corpus
	$< tests/fuzz/corpus

.PHONY: build-fuzz fuzz-run fuzz-seeds
