# Fuzz targets: tests/fuzz/fuzz_<target>.c, their seeds in tests/fuzz/seeds/<target>/.
#
#   make fuzz            each target with libFuzzer (clang) for FUZZ_SECONDS, one at a time;
#                        FUZZ='sse chunked' runs only those
#   make fuzz-replay     every seed once, as built by gcc with ASan and UBSan
#   make fuzz-coverage   which lines the seeds and the corpora of former runs reach
#
# What a run finds is kept: the corpus in build/fuzz/corpus/<target>/, an input that
# crashes in build/fuzz/found/.  Once mended, such an input becomes a seed with a name
# that says what it broke.

FUZZ_SECONDS ?= 60
FUZZ_CC      ?= clang
FUZZ_DIR     := tests/fuzz
FUZZ_ALL     := $(patsubst $(FUZZ_DIR)/fuzz_%.c,%,$(wildcard $(FUZZ_DIR)/fuzz_*.c))
FUZZ         ?= $(FUZZ_ALL)
FUZZ_SOURCES := $(foreach r,$(ROOMS),$(filter-out proxy/main.c,$(wildcard $(r)/*.c)))
FUZZ_SHARED  := $(FUZZ_DIR)/strict.c
FUZZ_WARN     = $(WARN) -Wno-gnu-designator -Wno-initializer-overrides

# ---- libFuzzer, clang ----

FUZZ_OUT    := build/fuzz
FUZZ_CFLAGS  = -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all -DTEST_BUILD -pthread
FUZZ_SAN     = -fsanitize=fuzzer-no-link,address,undefined
FUZZ_OBJECTS = $(patsubst %.c,$(FUZZ_OUT)/obj/%.o,$(FUZZ_SOURCES) $(FUZZ_SHARED))

$(FUZZ_OUT)/obj/%.o: %.c $(FUZZ_OUT)/flags
	@mkdir -p $(@D)
	@echo "CC  $@"
	$(Q)$(FUZZ_CC) $(ALL_CPPFLAGS) $(FUZZ_WARN) $(FUZZ_CFLAGS) $(FUZZ_SAN) -MMD -MP -c -o $@ $<

$(FUZZ_OUT)/flags: FORCE
	$(call remember,$(FUZZ_CC) $(ALL_CPPFLAGS) $(FUZZ_WARN) $(FUZZ_CFLAGS) $(FUZZ_SAN))

$(FUZZ_OUT)/obj/proxy/status.o: ALL_CPPFLAGS += -DTRIPSWITCH_REVISION='"$(REVISION)"'

$(FUZZ_OUT)/libproduct.a: $(FUZZ_OBJECTS)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(FUZZ_OUT)/obj/entry_%.o: $(FUZZ_DIR)/fuzz.c $(FUZZ_DIR)/fuzz.h $(FUZZ_OUT)/flags
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) $(ALL_CPPFLAGS) $(FUZZ_WARN) $(FUZZ_CFLAGS) $(FUZZ_SAN) -DFUZZ_ENTRY=fuzz_$* -c -o $@ $<

$(FUZZ_OUT)/fuzz_%: $(FUZZ_OUT)/obj/$(FUZZ_DIR)/fuzz_%.o $(FUZZ_OUT)/obj/entry_%.o $(FUZZ_OUT)/libproduct.a
	@echo "LD  $@"
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIBS)

fuzz-programs: $(addprefix $(FUZZ_OUT)/fuzz_,$(FUZZ_ALL))

fuzz:
	$(SUBMAKE) fuzz-programs
	@$(PYTHON) $(FUZZ_DIR)/run.py --seconds $(FUZZ_SECONDS) --programs $(FUZZ_OUT) $(FUZZ)

# ---- Replay, gcc ----

FUZZ_OBJ = $(patsubst %.c,$(OUT)/obj/%.o,$(addprefix $(FUZZ_DIR)/,$(addsuffix .c,$(addprefix fuzz_,$(FUZZ_ALL)))) \
           $(FUZZ_SHARED) $(FUZZ_DIR)/fuzz.c $(FUZZ_DIR)/replay.c)

$(OUT)/fuzz-replay: $(FUZZ_OBJ) $(ARCHIVES)
	@echo "LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(FUZZ_OBJ) $(ARCHIVES) $(LIBS)

fuzz-replay:
	$(SUBMAKE) VARIANT=asan build/asan/fuzz-replay
	@build/asan/fuzz-replay $(FUZZ_DIR)/seeds

# ---- Coverage ----

FUZZ_COV := build/fuzz-coverage

$(FUZZ_COV)/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC  $@"
	$(Q)$(FUZZ_CC) $(ALL_CPPFLAGS) $(FUZZ_WARN) -O0 -g -DTEST_BUILD -pthread -fprofile-instr-generate -fcoverage-mapping \
	    -MMD -MP -c -o $@ $<

$(FUZZ_COV)/obj/proxy/status.o: ALL_CPPFLAGS += -DTRIPSWITCH_REVISION='"$(REVISION)"'

$(FUZZ_COV)/replay: $(patsubst $(OUT)/obj/%,$(FUZZ_COV)/obj/%,$(FUZZ_OBJ)) \
                    $(patsubst %.c,$(FUZZ_COV)/obj/%.o,$(FUZZ_SOURCES))
	@echo "LD  $@"
	$(Q)$(FUZZ_CC) -fprofile-instr-generate -pthread -o $@ $^ $(LIBS)

fuzz-coverage:
	$(SUBMAKE) $(FUZZ_COV)/replay
	@$(PYTHON) $(FUZZ_DIR)/run.py --coverage $(FUZZ_COV) --programs $(FUZZ_OUT) $(FUZZ)

.PHONY: fuzz fuzz-programs fuzz-replay fuzz-coverage
-include $(shell find $(FUZZ_OUT)/obj $(FUZZ_COV)/obj -name '*.d' 2>/dev/null)
