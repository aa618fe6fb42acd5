/* Orders and questions to the admin listener: the first byte says which; what is taken keeps
 * within its bounds, and what is not is explained. */
#include "base/strbuf.h"
#include "proxy/admin_body.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>
#include <string.h>

static void order(const char *text, size_t len, bool with_state)
{
    struct admin_order o;
    struct strbuf why = STRBUF_INIT;
    if (admin_parse_order(text, len, with_state, &o, &why) == 0) {
        CHECK(o.ttl_ms > 0 && o.ttl_ms <= SWITCHES_TTL_MAX_MS, "a time of %lld ms",
              (long long)o.ttl_ms);
        CHECK(strlen(o.reason) > 0 && strlen(o.reason) <= SWITCHES_REASON_MAX, "\"%s\"", o.reason);
        CHECK(!strpbrk(o.reason, "\r\n\t\x1b"), "a reason that is no line");
        CHECK(!with_state || o.state == BREAKER_OPEN || o.state == BREAKER_CLOSED, "state %d",
              (int)o.state);
    } else {
        CHECK(why.len > 0, "refused without a word");
    }
    strbuf_free(&why);
}

static void question(const char *text, size_t len)
{
    struct strbuf query = STRBUF_INIT;
    struct admin_question q;
    strbuf_add(&query, text, len);
    if (!admin_parse_question(strbuf_str(&query), &q)) {
        CHECK(q.question.url.len > 0, "no URL");
        for (size_t i = 0; i < q.headers.count; i++)
            CHECK(*q.headers.items[i].name, "a header without a name");
    }
    admin_question_free(&q);
    strbuf_free(&query);
}

void fuzz_admin(const uint8_t *data, size_t len)
{
    if (len == 0)
        return;
    char *text = fuzz_copy(data + 1, len - 1);
    if (data[0] == 'q')
        question(text, len - 1);
    else
        order(text, len - 1, data[0] == 's');
    free(text);
}
