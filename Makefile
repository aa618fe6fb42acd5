# tripswitch-proxy: build, run, test.  `make help` lists the targets.
#
# One variant is one directory below build/: "release" is what users get, "asan" and
# "tsan" are for the tests, "clang" is the second opinion.  Each room (folder) becomes
# one archive; programs link the archives in the order of the arrows between rooms.

.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:
VARIANT ?= release
ifeq ($(origin CC),default)
CC := $(if $(filter clang,$(VARIANT)),clang,gcc)
endif
Q := $(if $(V),,@)
OUT      := $(if $(filter release,$(VARIANT)),build,build/$(VARIANT))
JOBS     ?= $(shell nproc)
PYTHON   ?= python3
VERSION  := $(shell cat VERSION)
REVISION ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

prefix      ?= /usr/local
bindir      ?= $(prefix)/bin
datadir     ?= $(prefix)/share
docdir      ?= $(datadir)/doc/tripswitch-proxy

# ---- Flags ----

PKGS := libevent_core libevent_extra libcurl libcjson openssl libcares zlib
WARN := -std=gnu11 -Wall -Wextra -Wshadow -Werror -Wstrict-prototypes -Wmissing-prototypes -Wvla \
        -Wformat -Wformat-security
HARD := -fstack-protector-strong -fstack-clash-protection -fPIE \
        $(if $(filter x86_64%,$(shell uname -m)),-fcf-protection)
OPT.release := -O2 -g -D_FORTIFY_SOURCE=2
OPT.clang   := $(OPT.release)
OPT.asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined -DTEST_BUILD
OPT.tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread -DTEST_BUILD
ifndef OPT.$(VARIANT)
$(error VARIANT is one of release, clang, asan, tsan; not "$(VARIANT)")
endif

ALL_CPPFLAGS := -I. -D_GNU_SOURCE -DTRIPSWITCH_VERSION='"$(VERSION)"' $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(CPPFLAGS)
ALL_CFLAGS   := $(WARN) $(HARD) $(OPT.$(VARIANT)) -ffile-prefix-map=$(CURDIR)=. -pthread $(CFLAGS)
ALL_LDFLAGS  := -pie -Wl,-z,relro,-z,now,-z,noexecstack $(filter -fsanitize%,$(OPT.$(VARIANT))) $(LDFLAGS)
LIBS         := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lhttp_parser -pthread -lm

# ---- Build ----

# Link order follows the arrows: each room may use only the rooms after it.
ROOMS := proxy control sync config base
SRC    = $(wildcard $(1)/*.c)
OBJ    = $(patsubst %.c,$(OUT)/obj/%.o,$(filter-out proxy/main.c,$(call SRC,$(1))))
ARCHIVES := $(foreach r,$(ROOMS),$(OUT)/lib$(r).a)

EXTRA    := $(if $(filter tsan,$(VARIANT)),$(OUT)/obj/tools/tsan.o)

all: $(OUT)/tripswitch-proxy

# Linked beside, then moved: a test that starts the program meanwhile finds a whole one.
$(OUT)/tripswitch-proxy: $(OUT)/obj/proxy/main.o $(ARCHIVES) $(EXTRA) $(OUT)/flags
	@echo "LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@.new $< $(EXTRA) $(ARCHIVES) $(LIBS)
	@mv $@.new $@

# A file that is written only when its text changes, so that what depends on it is
# made again when flags, compiler or the list of a room's files change.
quote  = '$(subst ','\'',$(1))'
define remember
@mkdir -p $(@D)
@printf '%s\n' $(call quote,$(1)) | cmp -s - $@ || { $(if $(2),$(2) && )printf '%s\n' $(call quote,$(1)) > $@; }
endef

$(OUT)/flags: FORCE
	$(call remember,$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBS),tools/deps.sh --check build)

$(OUT)/revision: FORCE
	$(call remember,$(REVISION))

define room_rule
$(OUT)/lib$(1).list: FORCE
	$$(call remember,$(call OBJ,$(1)))
$(OUT)/lib$(1).a: $(call OBJ,$(1)) $(OUT)/lib$(1).list
	@rm -f $$@
	$(Q)ar rcs $$@ $$(filter %.o,$$^)
endef
$(foreach r,$(ROOMS),$(eval $(call room_rule,$(r))))

$(OUT)/obj/proxy/status.o: ALL_CPPFLAGS += -DTRIPSWITCH_REVISION='"$(REVISION)"'
$(OUT)/obj/proxy/status.o: $(OUT)/revision

$(OUT)/obj/%.o: %.c VERSION $(OUT)/flags
	@mkdir -p $(@D)
	@echo "CC  $@"
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# A unit test links the archives; the linker takes only what the test needs.
UNIT := $(patsubst tests/unit/%.c,$(OUT)/unit/%,$(wildcard tests/unit/test_*.c))
$(OUT)/unit/%: $(OUT)/obj/tests/unit/%.o $(ARCHIVES) $(EXTRA)
	@mkdir -p $(@D)
	@echo "LD  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@.new $< $(EXTRA) $(ARCHIVES) -lcmocka $(LIBS)
	@mv $@.new $@

units: $(UNIT)

unit: $(UNIT)
	@set -e; for t in $(UNIT); do echo "== $$t"; $$t; done

# ---- Run, test, demo ----

# Whoever says -j knows better; otherwise as many at once as there are processors.
SUBMAKE = +@$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

run:
	@tools/deps.sh build
	$(SUBMAKE) all
	@exec $(OUT)/tripswitch-proxy $(ARGS)

test:
	@tools/deps.sh build test
	$(SUBMAKE) VARIANT=release all build/bench/micro
	$(SUBMAKE) VARIANT=asan all units build/asan/fuzz-replay
	$(SUBMAKE) VARIANT=tsan all units
	@$(PYTHON) tools/test.py --jobs $(JOBS)

# What takes long: as many idle tunnels, and as many bytes through tunnels, as are promised,
# with progress on the way.
LARGE_TUNNELS ?= 8000
LARGE_MB      ?= 6144
test-large:
	@tools/deps.sh build test
	$(SUBMAKE) VARIANT=release all
	@TRIPSWITCH_TEST_TUNNELS=$(LARGE_TUNNELS) TRIPSWITCH_TEST_SOAK_MB=$(LARGE_MB) \
	 $(PYTHON) tests/integration/run.py -j 1 --bin build/tripswitch-proxy \
	 -k thousands_of_idle_tunnels -k same_through_splice tests/integration/test_tunnel.py

# Under ASan for so long, and then under TSan.
SOAK_SECONDS ?= 600

soak:
	@tools/deps.sh build test
	$(SUBMAKE) VARIANT=asan all
	$(SUBMAKE) VARIANT=tsan all
	@$(PYTHON) tools/test.py --soak $(SOAK_SECONDS)

demo:
	@tools/deps.sh build demo
	$(SUBMAKE) VARIANT=release all
	@$(PYTHON) tools/demo.py

deps:
	@tools/deps.sh build test lint

# ---- Checks ----

C_FILES := $(wildcard $(addsuffix /*.[ch],$(ROOMS) tools tests/unit tests/fuzz tests/bench))

format:
	clang-format -i $(C_FILES)

check-format:
	@tools/deps.sh lint
	@clang-format --dry-run -Werror $(C_FILES) && echo "format: $(words $(C_FILES)) files are as .clang-format wants them"

lint:
	@tools/deps.sh build test lint
	$(SUBMAKE) VARIANT=release all
	@$(PYTHON) tools/lint.py --jobs $(JOBS) $(CHECKS)

# ---- Install, clean ----

install: all
	install -D -m 755 $(OUT)/tripswitch-proxy $(DESTDIR)$(bindir)/tripswitch-proxy
	install -D -m 644 config/schema.json $(DESTDIR)$(datadir)/tripswitch-proxy/schema.json
	install -D -m 644 config/example.json $(DESTDIR)$(docdir)/example.json
	install -D -m 644 README.md $(DESTDIR)$(docdir)/README.md

uninstall:
	rm -f $(DESTDIR)$(bindir)/tripswitch-proxy
	rm -rf $(DESTDIR)$(datadir)/tripswitch-proxy $(DESTDIR)$(docdir)

clean:
	rm -rf build

help:
	@echo 'make               build build/tripswitch-proxy'
	@echo 'make run           install what is missing, build, run in the foreground;'
	@echo "                   ARGS='--listen 127.0.0.1:8888' passes flags"
	@echo 'make test          install what is missing, run every test'
	@echo 'make test-large    8 000 idle tunnels, and 6 GiB through tunnels, every byte hashed:'
	@echo '                   some minutes; LARGE_TUNNELS=N LARGE_MB=N'
	@echo 'make demo          watch a breaker trip and recover, in half a minute'
	@echo 'make soak          mixed traffic under ASan and TSan, SOAK_SECONDS=600 each'
	@echo 'make unit          build and run the unit tests (VARIANT=asan for sanitizers)'
	@echo 'make lint          clang-tidy, cppcheck, include arrows, lone headers, scripts;'
	@echo "                   CHECKS='arrows headers' runs only those"
	@echo 'make check-format  clang-format has nothing to say; make format obeys it'
	@echo 'make bench         ours beside nginx, HAProxy, squid, tinyproxy, Traffic Server;'
	@echo "                   CASES='kv64 post' ROUNDS=5 SECONDS=2 PEERS=nginx"
	@echo 'make bench-check   instructions per step against tests/bench/micro.json,'
	@echo '                   which make bench-micro UPDATE=1 writes'
	@echo 'make bench-profile which functions the CASES spend their instructions in'
	@echo 'make bench-deps    install the peers, and valgrind'
	@echo 'make install       below DESTDIR and prefix (/usr/local); make uninstall'
	@echo 'make deps          install everything that building, testing and linting need'
	@echo 'make clean         remove build/'
	@echo
	@echo 'VARIANT=release|clang|asan|tsan, CC, CFLAGS, LDFLAGS, V=1 (show commands)'

FORCE:
.PHONY: all units unit run test test-large soak demo deps format check-format lint install uninstall clean help FORCE
-include tests/fuzz/fuzz.mk
-include tests/bench/bench.mk
-include $(shell find $(OUT)/obj -name '*.d' 2>/dev/null)
