/*
 * http_date.h - times in answers of the control plane.  Pure.
 */
#ifndef SYNC_HTTP_DATE_H
#define SYNC_HTTP_DATE_H
#include <stdint.h>

/* RFC 9110 section 5.6.7, all three formats.  -1: not a date. */
int http_date_parse(const char *s, int64_t *unix_ms);

#define RETRY_AFTER_MAX_MS (INT64_C(3600) * 1000)

/* RFC 9110 section 10.2.3: seconds or a date.  Milliseconds from wall_ms, 0 for a date
 * that has passed, at most an hour.  -1: neither. */
int64_t retry_after_ms(const char *s, int64_t wall_ms);

#endif
