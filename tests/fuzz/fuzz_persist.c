/* embedded.state_file, which people may edit: what is taken is within its bounds, and means the
 * same after it was written again. */
#include "base/strbuf.h"
#include "control/persist.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>
#include <string.h>

#define NOW_MS INT64_C(1800000000000)

struct list {
    const struct persist_states *states;
    size_t pos;
};

static bool next_of(void *arg, struct persist_entry *e)
{
    struct list *l = arg;

    if (l->pos == l->states->count)
        return false;
    *e = l->states->entries[l->pos++];
    return true;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static void check_same(const struct persist_entry *a, const struct persist_entry *b)
{
    CHECK(same_text(a->name, b->name), "%s became %s", a->name, b->name);
    CHECK(same_text(a->router, b->router), "the router of %s", a->name);
    CHECK(a->state == b->state, "%s is %d, then %d", a->name, a->state, b->state);
    CHECK(a->since_wall_ms == b->since_wall_ms, "since when %s is so", a->name);
    CHECK(a->failed_recoveries == b->failed_recoveries, "recoveries of %s", a->name);
}

static bool is_utf8(const char *s)
{
    for (size_t len = s ? strlen(s) : 0, n; len > 0; s += n, len -= n) {
        bool valid;
        n = utf8_sequence(s, len, &valid);
        if (!valid)
            return false;
    }
    return true;
}

/* The writer mends what is not UTF-8, which cJSON takes. */
static bool all_utf8(const struct persist_states *states)
{
    for (size_t i = 0; i < states->count; i++) {
        if (!is_utf8(states->entries[i].name) || !is_utf8(states->entries[i].router))
            return false;
    }
    return true;
}

static void check_again(const struct persist_states *states)
{
    struct list list = { states, 0 };
    struct strbuf text = STRBUF_INIT, why = STRBUF_INIT;
    struct persist_states again;

    persist_encode(next_of, &list, NOW_MS + PERSIST_AHEAD_MS, &text);
    CHECK(strbuf_ok(&text), "%zu bytes", text.len);
    CHECK(persist_decode(text.data, text.len, NOW_MS, &again, &why) == 0, "%s in %s",
          strbuf_str(&why), text.data);
    CHECK(again.count == states->count, "%zu, then %zu", states->count, again.count);
    for (size_t i = 0; i < again.count; i++)
        check_same(&states->entries[i], &again.entries[i]);
    persist_free(&again);
    strbuf_free(&text);
}

void fuzz_persist(const uint8_t *data, size_t len)
{
    char *copy = fuzz_copy(data, len);
    struct strbuf why = STRBUF_INIT;
    struct persist_states states;

    if (persist_decode(copy, len, NOW_MS, &states, &why) == 0) {
        CHECK(why.len == 0, "taken, but %s", strbuf_str(&why));
        for (size_t i = 0; i < states.count; i++) {
            const struct persist_entry *e = &states.entries[i];
            CHECK(e->since_wall_ms >= 0 && e->since_wall_ms <= NOW_MS + PERSIST_AHEAD_MS, "%lld",
                  (long long)e->since_wall_ms);
            CHECK(*e->name != '\0' && (!e->router || *e->router != '\0'), "an empty text");
        }
        if (all_utf8(&states))
            check_again(&states);
        persist_free(&states);
    } else {
        CHECK(why.len > 0, "refused without a reason");
    }
    strbuf_free(&why);
    free(copy);
}
