#include "sync/state_event.h"
#include <cjson/cJSON.h>
#include <string.h>

const char *state_event_result_text(enum state_event_result r)
{
    switch (r) {
    case STATE_EVENT_OK:
        return "ok";
    case STATE_EVENT_NOT_JSON:
        return "not a JSON object";
    case STATE_EVENT_MISSING:
        return "breaker or state is missing";
    case STATE_EVENT_TYPE:
        return "a field has the wrong type";
    case STATE_EVENT_NAME:
        return "the breaker's name is empty, too long or holds a NUL";
    case STATE_EVENT_STATE:
        return "unknown state";
    case STATE_EVENT_RATE:
        return "allow_rate is outside 0 to 1";
    case STATE_EVENT_RESULT_COUNT:
        break;
    }
    return "unknown";
}

static enum state_event_result read_name(const cJSON *item, struct state_event *out)
{
    size_t len = strlen(item->valuestring);
    if (len == 0 || len > STATE_EVENT_NAME_MAX)
        return STATE_EVENT_NAME;
    memcpy(out->breaker, item->valuestring, len + 1);
    out->breaker_len = len;
    return STATE_EVENT_OK;
}

static enum state_event_result read_rate(const cJSON *item, struct state_event *out)
{
    out->rate_null = !item || cJSON_IsNull(item);
    out->allow_rate = 0;
    if (out->rate_null)
        return STATE_EVENT_OK;
    if (!cJSON_IsNumber(item))
        return STATE_EVENT_TYPE;
    if (!(item->valuedouble >= 0 && item->valuedouble <= 1))
        return STATE_EVENT_RATE;
    out->allow_rate = item->valuedouble;
    return STATE_EVENT_OK;
}

static enum state_event_result read_fields(const cJSON *root, const char *key,
                                           struct state_event *out)
{
    const cJSON *breaker = cJSON_GetObjectItemCaseSensitive(root, key);
    const cJSON *state = cJSON_GetObjectItemCaseSensitive(root, "state");
    if (!breaker || !state)
        return STATE_EVENT_MISSING;
    if (!cJSON_IsString(breaker) || !cJSON_IsString(state))
        return STATE_EVENT_TYPE;
    enum state_event_result r = read_name(breaker, out);
    if (r == STATE_EVENT_OK)
        r = read_rate(cJSON_GetObjectItemCaseSensitive(root, "allow_rate"), out);
    if (r == STATE_EVENT_OK && breaker_state_parse(state->valuestring, &out->state) != 0)
        r = STATE_EVENT_STATE;
    return r;
}

static bool only_space(const char *s, const char *end)
{
    while (s < end && (*s == ' ' || *s == '\t' || *s == '\n' || *s == '\r'))
        s++;
    return s == end;
}

enum state_event_result state_event_parse(const char *json, size_t len, struct state_event *out)
{
    /* cJSON's strings end at a NUL, so "a\u0000b" would be taken for breaker "a" */
    if (memmem(json, len, "\\u0000", 6))
        return STATE_EVENT_NAME;
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(json, len, &end, false);
    enum state_event_result r = STATE_EVENT_NOT_JSON;
    if (cJSON_IsObject(root) && only_space(end, json + len))
        r = read_fields(root, "breaker", out);
    cJSON_Delete(root);
    return r;
}

int state_batch_parse(const char *json, size_t len, state_batch_cb *on_state, void *arg)
{
    const char *end = NULL;
    if (memmem(json, len, "\\u0000", 6))
        return -1;
    cJSON *root = cJSON_ParseWithLengthOpts(json, len, &end, false);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "states");
    if (cJSON_IsArray(root))
        list = root;
    bool whole = cJSON_IsArray(list) && only_space(end, json + len);
    for (const cJSON *item = whole ? list->child : NULL; item; item = item->next) {
        struct state_event ev = { 0 };
        enum state_event_result r =
            cJSON_IsObject(item) ? read_fields(item, "breaker_id", &ev) : STATE_EVENT_TYPE;
        on_state(arg, r, &ev);
    }
    cJSON_Delete(root);
    return whole ? 0 : -1;
}
