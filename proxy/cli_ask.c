#include "base/base.h"
#include "base/slice.h"
#include "proxy/authority.h"
#include "proxy/cli.h"
#include "proxy/cli_call.h"
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 3000L
#define TIMEOUT_MS         10000L
#define ANSWER_MAX         ((size_t)64 << 20)

/* ---- Where ---- */

/* A listener on every address is reached on loopback. */
static void reachable(const char *listen, char *out, size_t size)
{
    static const struct {
        const char *any, *loopback;
    } pairs[] = { { "0.0.0.0:", "127.0.0.1:" }, { "[::]:", "[::1]:" } };
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        size_t len = strlen(pairs[i].any);
        if (strncmp(listen, pairs[i].any, len) == 0) {
            snprintf(out, size, "%s%s", pairs[i].loopback, listen + len);
            return;
        }
    }
    snprintf(out, size, "%s", listen);
}

/* ---- One request ---- */

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct strbuf *body = arg;
    strbuf_add(body, data, size * count);
    return strbuf_ok(body) ? size * count : 0;
}

static CURLcode set_up(CURL *e, const char *method, const char *url, const char *body,
                       struct strbuf *answer)
{
    CURLcode rc = CURLE_OK;
#define SET(option, value) (rc = rc ? rc : curl_easy_setopt(e, option, value))
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "http");
    /* both always: unset, libcurl asks the environment */
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    SET(CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
    SET(CURLOPT_HTTP09_ALLOWED, 0L);
    SET(CURLOPT_USERAGENT, "tripswitch-proxy/" TRIPSWITCH_VERSION);
    SET(CURLOPT_CUSTOMREQUEST, method);
    if (body)
        SET(CURLOPT_POSTFIELDS, body);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, answer);
    return rc;
#undef SET
}

/* 0, or -1: why says what happened. */
static int ask_one(const char *address, const char *method, const char *path, const char *body,
                   struct cli_answer *out, struct strbuf *why)
{
    struct strbuf url = STRBUF_INIT;
    struct curl_slist *headers = curl_slist_append(NULL, "X-Tripswitch-Admin: 1");
    CURL *e = curl_easy_init();
    long status = 0;
    char error[CURL_ERROR_SIZE] = "";
    headers = curl_slist_append(headers, "Content-Type: application/json");
    strbuf_addf(&url, "http://%s%s", address, path);
    strbuf_clear(&out->body);
    CURLcode rc = e ? set_up(e, method, strbuf_str(&url), body, &out->body) : CURLE_FAILED_INIT;
    if (!rc)
        rc = curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    if (!rc)
        rc = curl_easy_setopt(e, CURLOPT_ERRORBUFFER, error);
    if (!rc)
        rc = curl_easy_perform(e);
    if (rc)
        strbuf_addf(why, "no proxy answers on %s (%s)", address,
                    error[0] ? error : curl_easy_strerror(rc));
    else
        curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
    out->status = (int)status;
    snprintf(out->address, sizeof(out->address), "%s", address);
    curl_easy_cleanup(e);
    curl_slist_free_all(headers);
    strbuf_free(&url);
    return rc ? -1 : 0;
}

/* The first of the listeners that answers. */
static int ask_all(const struct listen_list *list, const char *flag, const char *method,
                   const char *path, const char *body, struct cli_answer *out, struct strbuf *why)
{
    char address[80];
    if (list->count == 0)
        strbuf_addf(why, "%s_listen is off in this configuration", flag);
    for (size_t i = 0; i < list->count; i++) {
        strbuf_clear(why);
        reachable(list->items[i].text, address, sizeof(address));
        if (ask_one(address, method, path, body, out, why) == 0)
            return 0;
    }
    strbuf_addf(why,
                "; is it running, and with this configuration?  --config FILE or --%s ADDR says "
                "where it listens",
                flag);
    return CLI_UNREACHABLE;
}

int cli_ask(const struct cli_call *call, enum cli_listener to, const char *method, const char *path,
            const char *body, struct cli_answer *out, struct strbuf *why)
{
    const char *flag = to == CLI_ADMIN ? "admin" : "telemetry", *given = cli_flag(call, flag);
    struct authority a;
    struct config *cfg;
    *out = (struct cli_answer){ .body = { .max = ANSWER_MAX } };
    if (given) {
        if (strlen(given) >= sizeof(out->address) || authority_parse(&a, slice_of(given), 0))
            return cli_misuse(call, "--%s wants an address and a port, such as 127.0.0.1:313%d",
                              flag, to == CLI_ADMIN);
        if (ask_one(given, method, path, body, out, why) == 0)
            return 0;
        strbuf_addf(why, "; is it running, and is that its %s_listen?", flag);
        return CLI_UNREACHABLE;
    }
    int code = cli_config(call, &cfg);
    if (code) {
        cli_say(call, "--%s ADDR says where the proxy listens without it", flag);
        return code;
    }
    code = ask_all(to == CLI_ADMIN ? &cfg->admin_listen : &cfg->telemetry_listen, flag, method,
                   path, body, out, why);
    config_free(cfg);
    return code;
}

/* ---- Its answer ---- */

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

const cJSON *cli_first(const cJSON *object, const char *name)
{
    const cJSON *array = member(object, name);
    return array ? array->child : NULL;
}

const char *cli_text(const cJSON *object, const char *name)
{
    const cJSON *item = member(object, name);
    return cJSON_IsString(item) ? item->valuestring : "";
}

double cli_number(const cJSON *object, const char *name)
{
    const cJSON *item = member(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

bool cli_true(const cJSON *object, const char *name)
{
    return cJSON_IsTrue(member(object, name));
}

cJSON *cli_read(const struct cli_call *call, const struct cli_answer *a, int *code)
{
    cJSON *root = cJSON_ParseWithLength(strbuf_str(&a->body), a->body.len);
    struct strbuf line = STRBUF_INIT;
    if (root && a->status / 100 == 2)
        return root;
    *code = CLI_REFUSED;
    if (*cli_text(root, "detail"))
        strbuf_addf(&line, "refused: %s", cli_text(root, "detail"));
    else
        strbuf_addf(&line, "what answers on %s with status %d is not a tripswitch-proxy",
                    a->address, a->status);
    struct strbuf safe = STRBUF_INIT;
    cli_add_safe(&safe, strbuf_str(&line));
    cli_say(call, "%s", strbuf_str(&safe));
    strbuf_free(&safe);
    strbuf_free(&line);
    cJSON_Delete(root);
    return NULL;
}

void cli_add_encoded(struct strbuf *path, const char *text)
{
    char *encoded = curl_easy_escape(NULL, text, (int)strnlen(text, 65536));
    strbuf_adds(path, encoded ? encoded : "");
    curl_free(encoded);
}

void cli_add_query(struct strbuf *path, const char *name, const char *value)
{
    strbuf_addf(path, "%c%s=", strchr(strbuf_str(path), '?') ? '&' : '?', name);
    cli_add_encoded(path, value);
}
