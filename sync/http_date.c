#include "sync/http_date.h"
#include "base/base.h"
#include <stdbool.h>
#include <string.h>
#include <time.h>

int http_date_parse(const char *s, int64_t *unix_ms)
{
    /* the names are English because this program never sets a locale */
    static const char *const formats[] = {
        "%a, %d %b %Y %H:%M:%S GMT", /* IMF-fixdate */
        "%A, %d-%b-%y %H:%M:%S GMT", /* RFC 850 */
        "%a %b %e %H:%M:%S %Y",      /* asctime */
    };
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct tm tm = { 0 };
        const char *end = strptime(s, formats[i], &tm);
        if (!end || *end)
            continue;
        *unix_ms = (int64_t)timegm(&tm) * 1000;
        return 0;
    }
    return -1;
}

static bool all_digits(const char *s)
{
    return *s && s[strspn(s, "0123456789")] == '\0';
}

int64_t retry_after_ms(const char *s, int64_t wall_ms)
{
    int64_t ms = 0;
    if (all_digits(s)) {
        for (; *s && ms <= RETRY_AFTER_MAX_MS; s++)
            ms = ms * 10 + (*s - '0') * INT64_C(1000);
    } else {
        int64_t at;
        if (http_date_parse(s, &at) != 0)
            return -1;
        ms = at > wall_ms ? at - wall_ms : 0;
    }
    return ms < RETRY_AFTER_MAX_MS ? ms : RETRY_AFTER_MAX_MS;
}
