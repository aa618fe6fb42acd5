#include "base/clock.h"

#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts); /* cannot fail for the two clocks used here */
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

int64_t clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

int64_t clock_wall_ms(void)
{
    return clock_wall_us() / 1000;
}

/* RFC 3339 has four digits for the year; times outside are pinned to its ends. */
#define WALL_US_MIN INT64_C(-62167219200000000) /* 0000-01-01T00:00:00Z */
#define WALL_US_MAX INT64_C(253402300799999999) /* 9999-12-31T23:59:59.999999Z */

struct civil {
    unsigned year, month, day;
};

/*
 * Proleptic Gregorian date of a day number counted from 0000-03-01.  Years that begin
 * in March put the leap day last, so month lengths follow one linear formula.
 */
static struct civil civil_from_days(int64_t days)
{
    /* The 60 days before March of year 0 borrow a 400-year cycle. */
    unsigned d = (unsigned)(days + 146097);
    unsigned era = d / 146097;
    unsigned day_of_era = d % 146097;
    unsigned year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned shifted_month = (5 * day_of_year + 2) / 153; /* 0 is March */

    struct civil c;
    c.day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    c.month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    c.year = year_of_era + era * 400 - 400 + (c.month <= 2);
    return c;
}

static char *put_digits(char *p, unsigned n, int width, char end)
{
    for (int i = width - 1; i >= 0; i--) {
        p[i] = (char)('0' + n % 10);
        n /= 10;
    }
    p[width] = end;
    return p + width + 1;
}

/* By hand because gmtime_r() takes a lock in glibc, and every worker writes log lines. */
void clock_rfc3339(int64_t wall_us, char out[CLOCK_RFC3339_SIZE])
{
    if (wall_us < WALL_US_MIN)
        wall_us = WALL_US_MIN;
    if (wall_us > WALL_US_MAX)
        wall_us = WALL_US_MAX;

    int64_t since_year_0 = wall_us - WALL_US_MIN;
    int64_t seconds = since_year_0 / 1000000;
    unsigned day_second = (unsigned)(seconds % 86400);
    struct civil c = civil_from_days(seconds / 86400 - 60);

    char *p = put_digits(out, c.year, 4, '-');
    p = put_digits(p, c.month, 2, '-');
    p = put_digits(p, c.day, 2, 'T');
    p = put_digits(p, day_second / 3600, 2, ':');
    p = put_digits(p, day_second / 60 % 60, 2, ':');
    p = put_digits(p, day_second % 60, 2, '.');
    p = put_digits(p, (unsigned)(since_year_0 % 1000000), 6, 'Z');
    *p = '\0';
}
