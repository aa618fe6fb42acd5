# Benchmarks: tests/bench/run.py and its programs.
#
#   make bench-deps      install the peers that ours is compared with
#   make bench           every case, or CASES='kv64 post'; ROUNDS=5, SECONDS=3, PEERS='nginx haproxy'
#   make bench DOCS=1    and put table and plot into docs/performance.md
#   make bench-list      the cases
#   make bench-profile   where the instructions of CASES go (kv64), by callgrind
#   make bench-micro     instructions of single steps, by callgrind; UPDATE=1 writes micro.json
#   make bench-check     the same, and fails when one has grown by over 5 % since micro.json
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

# tests/unit/test_bench_load.c tests what these rest on.
BENCH_TESTED := $(addprefix $(OUT)/obj/$(BENCH_DIR)/,response.o histogram.o cpu.o)
$(OUT)/unit/test_bench_load: EXTRA += $(BENCH_TESTED)
$(OUT)/unit/test_bench_load: $(BENCH_TESTED)

bench-programs: all $(BENCH_OUT)/origin $(BENCH_OUT)/load

bench:
	@tools/deps.sh build bench
	$(SUBMAKE) VARIANT=release bench-programs
	@$(PYTHON) $(BENCH_DIR)/run.py --rounds $(ROUNDS) --seconds $(SECONDS) --cases '$(CASES)' --peers '$(PEERS)' $(if $(DOCS),--docs)

bench-list:
	@$(PYTHON) $(BENCH_DIR)/run.py --list

bench-profile:
	@tools/deps.sh build bench micro
	$(SUBMAKE) VARIANT=release bench-programs
	@$(PYTHON) $(BENCH_DIR)/callgrind.py $(if $(CASES),--cases '$(CASES)')

# Links as the unit tests do; its own getrandom() makes keyed hashes repeatable.
$(BENCH_OUT)/micro: $(OUT)/obj/$(BENCH_DIR)/micro.o $(ARCHIVES)
	@mkdir -p $(@D)
	@echo "LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(ARCHIVES) $(LIBS)

MICRO = $(PYTHON) $(BENCH_DIR)/micro.py --program $(BENCH_OUT)/micro --compiler '$(CC)'

bench-micro:
	@tools/deps.sh build micro
	$(SUBMAKE) VARIANT=release $(BENCH_OUT)/micro
	@$(MICRO) $(if $(UPDATE),--update)

bench-check:
	@tools/deps.sh build micro
	$(SUBMAKE) VARIANT=release $(BENCH_OUT)/micro
	@$(MICRO) --check

bench-deps:
	@tools/deps.sh build bench peers micro

.PHONY: bench bench-programs bench-list bench-profile bench-micro bench-check bench-deps
