# Benchmarks: tests/bench/run.py and its programs.
#
#   make bench-deps      install the peers that ours is compared with
#   make bench           every case, or CASES='kv64 post'; ROUNDS=5, SECONDS=3, PEERS='nginx haproxy'
#   make bench-list      the cases
#
# The table, JSON and plot of the last run are in build/bench/.

ROUNDS  ?= 3
SECONDS ?= 1.5
BENCH_DIR := tests/bench
BENCH_OUT := build/bench

$(BENCH_OUT)/origin: $(OUT)/obj/$(BENCH_DIR)/origin.o
$(BENCH_OUT)/load: $(addprefix $(OUT)/obj/$(BENCH_DIR)/,load.o response.o histogram.o cpu.o)
$(BENCH_OUT)/origin $(BENCH_OUT)/load:
	@mkdir -p $(@D)
	@echo "LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^

bench-programs: all $(BENCH_OUT)/origin $(BENCH_OUT)/load

bench:
	@tools/deps.sh build test
	$(SUBMAKE) VARIANT=release bench-programs
	@$(PYTHON) $(BENCH_DIR)/run.py --rounds $(ROUNDS) --seconds $(SECONDS) --cases '$(CASES)' --peers '$(PEERS)'

bench-list:
	@$(PYTHON) $(BENCH_DIR)/run.py --list

bench-deps:
	@tools/deps.sh build test bench

.PHONY: bench bench-programs bench-list bench-deps
