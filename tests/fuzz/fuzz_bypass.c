/* The bypass list: first line host, second line port, then entries as the operator writes
 * them.  Each entry speaks for itself, case does not matter, and a port binds. */
#include "config/arena.h"
#include "proxy/authority.h"
#include "proxy/route.h"
#include "tests/fuzz/fuzz.h"
#include <ctype.h>
#include <stdlib.h>

#define ENTRIES_MAX 16

static size_t read_entries(struct fuzz_reader *r, struct arena *a, char **entries)
{
    size_t count = 0;
    while (r->len > 0 && count < ENTRIES_MAX) {
        struct slice line = fuzz_line(r);
        entries[count++] = arena_strndup(a, line.p, line.len);
    }
    return count;
}

static void check_one(char *entry, const struct authority *to, bool matched)
{
    struct string_list one = { &entry, 1 };
    char upper[HOST_MAX + 1];
    for (size_t i = 0; i <= to->host_len; i++)
        upper[i] = (char)toupper((unsigned char)to->host[i]);
    CHECK(bypass_match(&one, (struct slice){ upper, to->host_len }, to->port) == matched,
          "\"%s\": case matters", entry);
    if (strcmp(entry, "*") == 0)
        CHECK(matched, "* left something out");
    if (strcmp(entry, to->host) == 0)
        CHECK(matched, "\"%s\" is not itself", entry);
}

void fuzz_bypass(const uint8_t *data, size_t len)
{
    struct fuzz_reader r = { data, len };
    struct arena arena = { 0 };
    char *entries[ENTRIES_MAX];
    struct authority to;
    struct slice host = fuzz_line(&r), port = fuzz_line(&r);
    char *number = fuzz_string(port.p, port.len);
    uint16_t fallback = (uint16_t)strtoul(number, NULL, 10);
    if (authority_parse(&to, host, fallback ? fallback : 80) == TARGET_OK) {
        struct string_list all = { entries, read_entries(&r, &arena, entries) };
        bool any = false;
        for (size_t i = 0; i < all.count; i++) {
            struct string_list one = { &entries[i], 1 };
            bool matched = bypass_match(&one, (struct slice){ to.host, to.host_len }, to.port);
            check_one(entries[i], &to, matched);
            any |= matched;
        }
        CHECK(bypass_match(&all, (struct slice){ to.host, to.host_len }, to.port) == any,
              "the list is not the sum of its entries");
    }
    arena_free(&arena);
    free(number);
}
