/* Dates and Retry-After: refused, or a time that reads the same in the preferred format. */
#include "sync/http_date.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>
#include <time.h>

#define NOW_MS INT64_C(1700000000000)

static void check_date(const char *text)
{
    int64_t ms, again;
    char out[64];
    struct tm tm;
    if (http_date_parse(text, &ms) != 0)
        return;
    CHECK(ms % 1000 == 0, "%lld", (long long)ms);
    time_t seconds = (time_t)(ms / 1000);
    CHECK(gmtime_r(&seconds, &tm), "\"%s\" is no time", text);
    if (tm.tm_year < -900 || tm.tm_year > 8099)
        return; /* years of four digits only */
    strftime(out, sizeof(out), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    CHECK(http_date_parse(out, &again) == 0, "\"%s\" is refused, from \"%s\"", out, text);
    CHECK(again == ms, "\"%s\" is %lld, \"%s\" %lld", text, (long long)ms, out, (long long)again);
}

void fuzz_http_date(const uint8_t *data, size_t len)
{
    char *text = fuzz_string(data, len);
    check_date(text);
    int64_t wait_ms = retry_after_ms(text, NOW_MS);
    CHECK(wait_ms >= -1 && wait_ms <= RETRY_AFTER_MAX_MS, "\"%s\": %lld", text, (long long)wait_ms);
    free(text);
}
