# `make fuzz` builds a libFuzzer target for every decoder (clang) and runs each for FUZZ_SECONDS on its corpus.
FUZZ_SECONDS ?= 7
FUZZ_T := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

$(B)/tests/fuzz/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/fuzz.o $(B)/tests/sim/kv_mem.o $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$(B)/tests/fuzz/seeds: $(B)/tests/fuzz/seeds.o $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS)

fuzz-targets: $(FUZZ_T:%=$(B)/tests/fuzz/fuzz_%)

fuzz:
	$(MAKE) --no-print-directory -s MODE=fuzz CC=clang WARN=-w B=build/fuzz fuzz-targets
	tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS) $(FUZZ_T)

# after a schema has changed: writes tests/fuzz/corpus again
fuzz-seeds: $(B)/tests/fuzz/seeds
	mkdir -p tests/fuzz/corpus
	$< tests/fuzz/corpus

.PHONY: fuzz fuzz-targets fuzz-seeds
