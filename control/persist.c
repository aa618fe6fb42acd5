#include "control/persist.h"

#include "base/base.h"
#include "base/map.h"
#include "base/strbuf.h"
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT  "tripswitch-proxy breakers"
#define VERSION 1

/* A tree costs far more than its text; what we write ourselves stays below both. */
#define VALUES_MAX ((size_t)8 * PERSIST_ENTRIES_MAX)
#define DEPTH_MAX  8

#define EXACT_INTEGER_MAX 9007199254740992.0 /* 2^53 */

/* Writing. */

static void write_entry(struct json *j, const struct persist_entry *e)
{
    json_open(j, NULL, '{');
    json_str(j, "name", e->name);
    json_str(j, "state", machine_state_name(e->state));
    json_int(j, "since_wall_ms", e->since_wall_ms);
    json_int(j, "failed_recoveries", e->failed_recoveries);
    if (e->router)
        json_str(j, "router", e->router);
    json_close(j);
}

void persist_encode(persist_source *next, void *arg, int64_t now_wall_ms, struct strbuf *out)
{
    struct json j = { .sb = out };
    struct persist_entry e;

    out->max = PERSIST_BYTES_MAX;
    json_open(&j, NULL, '{');
    json_str(&j, "format", FORMAT);
    json_int(&j, "version", VERSION);
    json_int(&j, "written_wall_ms", now_wall_ms);
    json_open(&j, "breakers", '[');
    strbuf_adds(out, "\n");
    while (next(arg, &e)) {
        write_entry(&j, &e);
        strbuf_adds(out, "\n"); /* a line each, for people */
    }
    json_close(&j);
    json_close(&j);
    strbuf_adds(out, "\n");
}

/* Reading. */

__attribute__((format(printf, 2, 3))) static int refuse(struct strbuf *why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    strbuf_addv(why, fmt, ap);
    va_end(ap);
    return -1;
}

/* Before anything is allocated for the tree. */
static int fence(const char *text, size_t len, struct strbuf *why)
{
    size_t values = 1;
    unsigned depth = 0;
    bool in_string = false;

    if (len > PERSIST_BYTES_MAX)
        return refuse(why, "it is over %zu bytes", PERSIST_BYTES_MAX);
    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        values += c == ',' || c == '[' || c == '{';
        depth += c == '[' || c == '{';
        depth -= depth > 0 && (c == ']' || c == '}');
        if (depth > DEPTH_MAX || values > VALUES_MAX)
            return refuse(why, "it holds more than a file of breakers can");
    }
    return 0;
}

static cJSON *parse(const char *text, size_t len, struct strbuf *why)
{
    const char *end = text;
    cJSON *root = cJSON_ParseWithLengthOpts(text, len, &end, false);

    while (root && end < text + len && *end && strchr(" \t\r\n", *end))
        end++;
    if (root && end == text + len)
        return root;
    cJSON_Delete(root);
    refuse(why, "it is not JSON, from byte %zu on", (size_t)(end - text));
    return NULL;
}

static const cJSON *field(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

/* A whole number of 0 to max. */
static bool read_count(const cJSON *item, int64_t max, int64_t *out)
{
    double v = cJSON_IsNumber(item) ? item->valuedouble : NAN;

    if (!(v >= 0) || v > EXACT_INTEGER_MAX || v != floor(v) || v > (double)max)
        return false;
    *out = (int64_t)v;
    return true;
}

static const char *read_text(const cJSON *item)
{
    return cJSON_IsString(item) && *item->valuestring ? item->valuestring : NULL;
}

static int read_entry(const cJSON *item, size_t i, int64_t written, struct persist_entry *out,
                      struct strbuf *why)
{
    const cJSON *router = field(item, "router");
    const char *state = read_text(field(item, "state"));
    int64_t failed;

    if (!cJSON_IsObject(item))
        return refuse(why, "breakers[%zu] is not an object", i);
    out->name = read_text(field(item, "name"));
    if (out->name == NULL)
        return refuse(why, "breakers[%zu].name is not a text", i);
    if (state == NULL || machine_state_parse(state, &out->state) < 0)
        return refuse(why, "breakers[%zu].state is not open, half_open or closed", i);
    if (!read_count(field(item, "since_wall_ms"), written, &out->since_wall_ms))
        return refuse(why, "breakers[%zu].since_wall_ms is not a time before written_wall_ms", i);
    if (!read_count(field(item, "failed_recoveries"), UINT32_MAX, &failed))
        return refuse(why, "breakers[%zu].failed_recoveries is not a count", i);
    out->failed_recoveries = (uint32_t)failed;
    out->router = read_text(router);
    if (router && out->router == NULL)
        return refuse(why, "breakers[%zu].router is not a text", i);
    return 0;
}

/* The head: is it ours, and of our time? */
static int read_head(const cJSON *root, int64_t now_wall_ms, int64_t *written, struct strbuf *why)
{
    const char *format = read_text(field(root, "format"));
    int64_t version;

    if (format == NULL || strcmp(format, FORMAT) != 0)
        return refuse(why, "it does not say that its format is \"" FORMAT "\"");
    if (!read_count(field(root, "version"), INT64_MAX, &version))
        return refuse(why, "version is not a number");
    if (version != VERSION)
        return refuse(why, "its version is %" PRId64 ", and this program knows %d", version,
                      VERSION);
    if (!read_count(field(root, "written_wall_ms"), INT64_MAX, written))
        return refuse(why, "written_wall_ms is not a time");
    if (*written - now_wall_ms > PERSIST_AHEAD_MS)
        return refuse(why, "it was written %" PRId64 " s in the future: the clock was set back",
                      (*written - now_wall_ms) / 1000);
    return 0;
}

static int read_entries(const cJSON *list, int64_t written, struct persist_states *out,
                        struct strbuf *why)
{
    struct map *seen = map_new();
    const cJSON *item;
    int rc = 0;

    out->entries = xcalloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*out->entries));
    cJSON_ArrayForEach(item, list)
    {
        struct persist_entry *e = &out->entries[out->count];

        rc = read_entry(item, out->count, written, e, why);
        if (rc == 0 && map_get(seen, e->name, strlen(e->name)))
            rc = refuse(why, "breakers[%zu].name is there twice", out->count);
        if (rc < 0)
            break;
        map_put(seen, e->name, strlen(e->name), e);
        out->count++;
    }
    map_free(seen);
    return rc;
}

static int read_root(struct persist_states *out, int64_t now_wall_ms, struct strbuf *why)
{
    const cJSON *list = field(out->root, "breakers");
    int64_t written = 0;

    if (read_head(out->root, now_wall_ms, &written, why) < 0)
        return -1;
    if (!cJSON_IsArray(list))
        return refuse(why, "breakers is not an array");
    if (cJSON_GetArraySize(list) > PERSIST_ENTRIES_MAX)
        return refuse(why, "it holds more than %d breakers", PERSIST_ENTRIES_MAX);
    return read_entries(list, written, out, why);
}

int persist_decode(const char *text, size_t len, int64_t now_wall_ms, struct persist_states *out,
                   struct strbuf *why)
{
    *out = (struct persist_states){ 0 };
    if (fence(text, len, why) < 0)
        return -1;
    out->root = parse(text, len, why);
    if (out->root && read_root(out, now_wall_ms, why) == 0)
        return 0;
    persist_free(out);
    return -1;
}

void persist_free(struct persist_states *states)
{
    cJSON_Delete(states->root);
    free(states->entries);
    *states = (struct persist_states){ 0 };
}
