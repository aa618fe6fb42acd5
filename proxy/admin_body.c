#include "proxy/admin_body.h"

#include "base/base.h"
#include "base/strbuf.h"
#include "config/value.h"

#include <cjson/cJSON.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

/* ---- Orders ---- */

static const char *text_of(const cJSON *root, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

static int parse_state(const cJSON *root, enum breaker_state *out, struct strbuf *why)
{
    const char *text = text_of(root, "state");

    if (text != NULL && strcmp(text, "open") == 0)
        *out = BREAKER_OPEN;
    else if (text != NULL && strcmp(text, "closed") == 0)
        *out = BREAKER_CLOSED;
    else
        strbuf_adds(why, "\"state\" must be \"open\" or \"closed\"");
    return why->len > 0 ? -1 : 0;
}

static int parse_ttl(const cJSON *root, int64_t *out, struct strbuf *why)
{
    const char *text = text_of(root, "ttl");

    if (text == NULL) {
        strbuf_adds(why, "\"ttl\" is missing: how long it lasts, such as \"10m\", at most \"24h\"");
        return -1;
    }
    strbuf_adds(why, "\"ttl\": ");
    if (value_duration(text, out, why) < 0)
        return -1;
    if (*out < 1 || *out > SWITCHES_TTL_MAX_MS) {
        strbuf_adds(why, "must be above 0 and at most 24h");
        return -1;
    }
    strbuf_clear(why);
    return 0;
}

/* Shown to clients, in logs and on pages: text, on one line. */
static bool is_one_line(const char *s)
{
    size_t len = strlen(s), blank = strspn(s, " ");

    for (size_t i = 0; i < len;) {
        bool valid;
        size_t n = utf8_sequence(s + i, len - i, &valid);
        if (!valid || (unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return false;
        i += n;
    }
    return blank < len;
}

static int parse_reason(const cJSON *root, char out[SWITCHES_REASON_MAX + 1], struct strbuf *why)
{
    const char *text = text_of(root, "reason");

    if (text == NULL || *text == '\0')
        strbuf_adds(why, "\"reason\" is missing: who comes later wants to know why");
    else if (strlen(text) > SWITCHES_REASON_MAX)
        strbuf_addf(why, "\"reason\" is longer than %d bytes", SWITCHES_REASON_MAX);
    else if (!is_one_line(text))
        strbuf_adds(why, "\"reason\" must be one line of text");
    else
        memcpy(out, text, strlen(text) + 1);
    return why->len > 0 ? -1 : 0;
}

static int refuse_unknown(const cJSON *root, bool with_state, struct strbuf *why)
{
    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        if (strcmp(item->string, "ttl") == 0 || strcmp(item->string, "reason") == 0 ||
            (with_state && strcmp(item->string, "state") == 0))
            continue;
        strbuf_adds(why, "unknown member ");
        strbuf_json_string(why, item->string, strnlen(item->string, 60));
        return -1;
    }
    return 0;
}

int admin_parse_order(const char *text, size_t len, bool with_state, struct admin_order *out,
                      struct strbuf *why)
{
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, len, &end, false);
    int err = -1;

    while (root != NULL && end < text + len && memchr(" \t\r\n", *end, 4) != NULL)
        end++;
    if (root == NULL || !cJSON_IsObject(root) || end != text + len)
        strbuf_adds(why, with_state ? "the body must be a JSON object with state, ttl and reason"
                                    : "the body must be a JSON object with ttl and reason");
    else if (refuse_unknown(root, with_state, why) == 0 &&
             (!with_state || parse_state(root, &out->state, why) == 0) &&
             parse_ttl(root, &out->ttl_ms, why) == 0)
        err = parse_reason(root, out->reason, why);
    cJSON_Delete(root);
    return err;
}

/* ---- Questions ---- */

/* "Name: value"; cuts the text in two. */
static bool add_header(struct name_value_list *list, char *text)
{
    char *colon = strchr(text, ':');

    if (colon == NULL || colon == text)
        return false;
    char *value = colon + 1 + strspn(colon + 1, " \t");
    size_t len = strlen(value);
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
        value[--len] = '\0';
    *colon = '\0';
    list->items = xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = (struct name_value){ text, value };
    return true;
}

const char *admin_parse_question(const char *query, struct admin_question *out)
{
    struct evkeyval *item;

    *out = (struct admin_question){ .parsed = xcalloc(1, sizeof(*out->parsed)) };
    out->question = (struct explain_question){ .method = SLICE("GET"), .headers = &out->headers };
    TAILQ_INIT(out->parsed);
    if (*query != '\0' && evhttp_parse_query_str(query, out->parsed) != 0)
        return "the query is malformed";
    TAILQ_FOREACH(item, out->parsed, next)
    {
        if (strcmp(item->key, "url") == 0)
            out->question.url = slice_of(item->value);
        else if (strcmp(item->key, "method") == 0)
            out->question.method = slice_of(item->value);
        else if (strcmp(item->key, "header") != 0)
            return "only url, method and header may be asked for";
        else if (!add_header(&out->headers, item->value))
            return "header must be of the form \"Name: value\"";
    }
    return out->question.url.len > 0 ? NULL : "url is missing";
}

void admin_question_free(struct admin_question *q)
{
    evhttp_clear_headers(q->parsed);
    free(q->parsed);
    free(q->headers.items);
}
