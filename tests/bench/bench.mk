# Speed and memory. `make bench` runs everything (about 20 minutes) and writes build/bench.json; BENCH_ARGS are the
# options of tests/bench/bench.c, for example `make bench BENCH_ARGS="--quick --only group_deliveries"`.
BARE_O := $(patsubst %.c,$(B)/%.o,$(wildcard tests/bench/bare*.c))
BENCH_O := $(patsubst %.c,$(B)/%.o,$(filter-out tests/bench/bare%,$(wildcard tests/bench/*.c)))

$(B)/tests/bench/bare: $(BARE_O) $(B)/mesh/buf.o $(B)/mesh/alloc.o $(B)/mesh/clock.o
	$(CC) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS)

$(B)/tests/bench/bench: $(BENCH_O) $(B)/libparley.a
	$(CC) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS)

bench: $(B)/parley $(B)/tests/bench/bench $(B)/tests/bench/bare
	$(B)/tests/bench/bench --build $(B) $(BENCH_ARGS)

.PHONY: bench
