/* JSON that passes by: the same finds in whatever pieces it comes, and in JSON that is strict
 * those of a reader that keeps the document.  The first line holds pointers, parted by spaces. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/arena.h"
#include "config/text.h"
#include "config/value.h"
#include "proxy/json_scan.h"
#include "tests/fuzz/fuzz.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#define POINTERS 8

struct pointers {
    unsigned count;
    char text[POINTERS][RULE_TEXT_MAX + 1];
    struct json_pointer read[POINTERS];
};

/* All that was told, as text that can be compared, and the last value of each pointer. */
struct finds {
    struct strbuf told;
    struct strbuf last[POINTERS];
    uint64_t at;
    size_t len;
};

static void add_find(struct finds *f, unsigned i, const struct json_found *found)
{
    static const char *const words[] = { "null", "false", "true", NULL, "{}", "\"" };
    if (found->what == JSON_STRING_PIECE) {
        strbuf_add(&f->last[i], found->piece, found->len);
        return;
    }
    if (found->what != JSON_STRING_END)
        strbuf_clear(&f->last[i]);
    if (found->what == JSON_NUMBER)
        strbuf_addf(&f->last[i], "%.17g", found->number);
    else if (found->what != JSON_STRING_END)
        strbuf_adds(&f->last[i], words[found->what]);
    strbuf_addf(&f->told, "%u@%" PRIu64 " ", i, found->at);
    strbuf_add(&f->told, strbuf_str(&f->last[i]), f->last[i].len);
}

static bool on_find(void *arg, const struct json_found *found)
{
    struct finds *f = arg;
    CHECK(found->at >= f->at && found->at <= f->len, "offset %" PRIu64 " behind %" PRIu64,
          found->at, f->at);
    f->at = found->at;
    CHECK(found->pointers != 0 && found->pointers < BIT(POINTERS), "pointers %x", found->pointers);
    for (unsigned i = 0; i < POINTERS; i++)
        if (found->pointers & BIT(i))
            add_find(f, i, found);
    return false;
}

static void read_pointers(struct pointers *p, struct slice line)
{
    struct strbuf why = STRBUF_INIT;
    struct arena a = { 0 };
    p->count = 0;
    while (line.len > 0 && p->count < POINTERS) {
        const char *space = memchr(line.p, ' ', line.len);
        size_t len = space ? (size_t)(space - line.p) : line.len;
        char *text = fuzz_string(line.p, len);
        if (check_pointer(&a, &text, &why) == 0) {
            memcpy(p->text[p->count], text, strlen(text) + 1);
            json_pointer_read(&p->read[p->count++], text);
        }
        free(text);
        line.p += len + (space != NULL);
        line.len -= len + (space != NULL);
    }
    strbuf_free(&why);
    arena_free(&a);
}

static bool scan(const struct pointers *p, struct slice json, unsigned way, struct finds *f)
{
    struct json_scan s;
    json_scan_init(&s, p->read, p->count, on_find, f);
    f->len = json.len;
    for (size_t at = 0; at < json.len;) {
        size_t n = fuzz_cut(way, (const uint8_t *)json.p, json.len, at);
        char *piece = fuzz_copy(json.p + at, n);
        json_scan_feed(&s, piece, n);
        free(piece);
        at += n;
    }
    return json_scan_end(&s);
}

static void free_finds(struct finds *f)
{
    strbuf_free(&f->told);
    for (unsigned i = 0; i < POINTERS; i++)
        strbuf_free(&f->last[i]);
    *f = (struct finds){ 0 };
}

/* ---- The reader that keeps the document ---- */

static const cJSON *follow(const cJSON *node, const struct json_pointer *p)
{
    for (unsigned i = 0; node && i < p->count; i++) {
        const struct json_step *step = &p->steps[i];
        char *key = fuzz_string(p->keys + step->start, step->len);
        if (cJSON_IsArray(node))
            node = step->index < INT32_MAX ? cJSON_GetArrayItem(node, (int)step->index) : NULL;
        else
            node = cJSON_GetObjectItemCaseSensitive(node, key);
        free(key);
    }
    return node;
}

static void describe(const cJSON *node, struct strbuf *out)
{
    if (cJSON_IsString(node))
        strbuf_addf(out, "\"%s", node->valuestring);
    else if (cJSON_IsNumber(node))
        strbuf_addf(out, "%.17g", isfinite(node->valuedouble) ? node->valuedouble : NAN);
    else if (cJSON_IsObject(node) || cJSON_IsArray(node))
        strbuf_adds(out, "{}");
    else if (node)
        strbuf_adds(out, cJSON_IsNull(node) ? "null" : cJSON_IsTrue(node) ? "true" : "false");
}

static void compare(const struct pointers *p, struct slice json, bool whole, const struct finds *f)
{
    struct strbuf errors = STRBUF_INIT;
    struct text *t = NULL;
    bool strict = !memchr(json.p, '/', json.len) && !memmem(json.p, json.len, "\xEF\xBB\xBF", 3) &&
                  text_parse("json", json.p, json.len, &t, &errors) == 0 && errors.len == 0;
    CHECK(!strict || whole, "strict JSON broke off");
    for (unsigned i = 0; strict && i < p->count; i++) {
        struct strbuf want = STRBUF_INIT;
        describe(follow(text_root(t), &p->read[i]), &want);
        bool long_number = strcmp(strbuf_str(&f->last[i]), "nan") == 0;
        CHECK(long_number || strcmp(strbuf_str(&want), strbuf_str(&f->last[i])) == 0,
              "%s: found %s, want %s", p->text[i], strbuf_str(&f->last[i]), strbuf_str(&want));
        strbuf_free(&want);
    }
    text_free(t);
    strbuf_free(&errors);
}

void fuzz_json_scan(const uint8_t *data, size_t len)
{
    static struct pointers p;
    struct fuzz_reader r = { data, len };
    read_pointers(&p, fuzz_line(&r));
    struct slice json = fuzz_rest(&r);
    struct finds first = { 0 }, f = { 0 };
    bool whole = scan(&p, json, 0, &first);
    for (unsigned way = 1; way < FUZZ_CUTS; way++) {
        bool now = scan(&p, json, way, &f);
        CHECK(now == whole && f.told.len == first.told.len &&
                  memcmp(strbuf_str(&f.told), strbuf_str(&first.told), f.told.len) == 0,
              "cut in way %u: \"%s\" %d, in one piece \"%s\" %d", way, strbuf_str(&f.told), now,
              strbuf_str(&first.told), whole);
        free_finds(&f);
    }
    compare(&p, json, whole, &first);
    free_finds(&first);
}
