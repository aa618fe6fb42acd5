#include "sync/call.h"
#include "base/base.h"
#include "base/clock.h"
#include "sync/http_date.h"
#include "sync/settings.h"
#include <stdio.h>

#define ERROR_PAGE_MAX (256 * 1024) /* read so that the connection can be used again */

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct call *c = arg;
    size_t len = size * n;
    if (client_status(&c->client) == 200) {
        strbuf_add(&c->body, bytes, len);
        return strbuf_ok(&c->body) ? len : 0;
    }
    c->passed_over += len;
    return c->passed_over <= ERROR_PAGE_MAX ? len : 0;
}

static int add_headers(struct call *c, const struct settings *s, const char *etag)
{
    if (client_add_header(&c->client, "Accept: application/json"))
        return -1;
    if (s->authorization && client_add_header(&c->client, s->authorization))
        return -1;
    if (!etag)
        return 0;
    struct strbuf line = STRBUF_INIT;
    strbuf_addf(&line, "If-None-Match: %s", etag);
    int rc = client_add_header(&c->client, strbuf_str(&line));
    strbuf_free(&line);
    return rc;
}

static int prepare(struct call *c, const struct settings *s, const char *url, const char *etag,
                   size_t max_bytes)
{
    c->body.max = max_bytes;
    c->conditional = etag != NULL;
    if (client_open(&c->client, s, url) != 0)
        return -1;
    CURL *e = c->client.easy;
    if (curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, CALL_TIMEOUT_MS) ||
        curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) ||
        curl_easy_setopt(e, CURLOPT_WRITEDATA, c))
        return -1;
    return add_headers(c, s, etag);
}

static int prepare_post(struct call *c)
{
    CURL *e = c->client.easy;
    if (curl_easy_setopt(e, CURLOPT_POST, 1L) ||
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->sent.len) ||
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, strbuf_str(&c->sent)))
        return -1;
    if (client_add_header(&c->client, "Content-Type: application/json"))
        return -1;
    return client_add_header(&c->client, "Expect:"); /* no waiting for 100 Continue */
}

static int start(struct call *c, CURLM *multi, int prepared)
{
    if (prepared == 0 && curl_multi_add_handle(multi, c->client.easy) == CURLM_OK) {
        c->multi = multi;
        return 0;
    }
    call_close(c);
    return -1;
}

int call_get(struct call *c, CURLM *multi, const struct settings *s, const char *url,
             const char *etag, size_t max_bytes)
{
    *c = (struct call){ 0 };
    return start(c, multi, prepare(c, s, url, etag, max_bytes));
}

int call_post(struct call *c, CURLM *multi, const struct settings *s, const char *url,
              struct strbuf *json, size_t max_bytes)
{
    *c = (struct call){ .sent = *json };
    *json = (struct strbuf)STRBUF_INIT;
    int prepared = prepare(c, s, url, NULL, max_bytes);
    return start(c, multi, prepared == 0 ? prepare_post(c) : -1);
}

bool call_under_way(const struct call *c)
{
    return c->multi != NULL;
}

bool call_is(const struct call *c, const CURL *easy)
{
    return easy && c->multi && c->client.easy == easy;
}

enum ask_result call_result(const struct call *c, CURLcode rc, const char *what,
                            char text[STATS_ERROR_MAX])
{
    int status = client_status(&c->client);
    snprintf(text, STATS_ERROR_MAX, "%s: HTTP %d", what, status);
    if (status == 401 || status == 403) {
        snprintf(text, STATS_ERROR_MAX, "%s: the server refused the API key (HTTP %d)", what,
                 status);
        return ASK_AUTH;
    }
    if (!strbuf_ok(&c->body)) {
        snprintf(text, STATS_ERROR_MAX, "%s: the answer is longer than %zu bytes", what,
                 c->body.max);
        return ASK_INVALID;
    }
    if (status == 304)
        return c->conditional ? ASK_SAME : ASK_INVALID;
    if (status != 0 && status != 200)
        return ASK_HTTP;
    if (status == 200 && rc == CURLE_OK)
        return ASK_OK;
    snprintf(text, STATS_ERROR_MAX, "%s: %s", what, client_error(&c->client, rc));
    return rc == CURLE_WEIRD_SERVER_REPLY || rc == CURLE_UNSUPPORTED_PROTOCOL ? ASK_INVALID
                                                                              : ASK_NETWORK;
}

int64_t call_asked_ms(const struct call *c)
{
    int status = client_status(&c->client);
    const char *after =
        status == 429 || status == 503 ? client_header(&c->client, "Retry-After") : NULL;
    return after ? retry_after_ms(after, clock_wall_ms()) : -1;
}

void call_close(struct call *c)
{
    if (c->multi)
        curl_multi_remove_handle(c->multi, c->client.easy);
    client_close(&c->client);
    strbuf_free(&c->sent);
    strbuf_free(&c->body);
    *c = (struct call){ 0 };
}
