#include "sync/stats.h"
#include "base/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void stats_init(struct stats *st)
{
    pthread_mutex_init(&st->lock, NULL);
    atomic_init(&st->listed_breakers, -1);
    atomic_init(&st->listed_routers, -1);
}

void stats_destroy(struct stats *st)
{
    pthread_mutex_destroy(&st->lock);
}

static void set_error(struct stats *st, enum stats_source source, const char *text)
{
    pthread_mutex_lock(&st->lock);
    snprintf(st->error[source], STATS_ERROR_MAX, "%s", text);
    pthread_mutex_unlock(&st->lock);
}

void stats_trouble(struct stats *st, enum stats_source source, const char *text, int64_t now_ms)
{
    set_error(st, source, text);
    uint64_t suppressed = 0;
    if (!quiet_error(&st->quiet, now_ms, &suppressed))
        return;
    char more[24];
    snprintf(more, sizeof(more), "%" PRIu64, suppressed);
    /* all, because the line that tells of one may swallow another's for a minute */
    log_event(LOG_WARNING, "sync", "control.failed", text, "stream", st->error[STATS_STREAM],
              "ingest", st->error[STATS_INGEST], "metadata", st->error[STATS_METADATA], "poll",
              st->error[STATS_POLL], "suppressed", more, NULL);
}

void stats_well(struct stats *st, enum stats_source source)
{
    if (st->error[source][0]) /* only we write it */
        set_error(st, source, "");
}

void stats_line(struct stats *st, const char *event, const char *msg, const char *reason,
                int64_t now_ms)
{
    uint64_t suppressed = 0;
    if (!quiet_line(&st->quiet, now_ms, &suppressed))
        return;
    char more[24];
    snprintf(more, sizeof(more), "%" PRIu64, suppressed);
    log_event(LOG_INFO, "sync", event, msg, "reason", reason, "suppressed", more, NULL);
}

void stats_last_error(struct stats *st, char out[STATS_ERROR_MAX])
{
    pthread_mutex_lock(&st->lock);
    const char *text = "";
    for (unsigned i = 0; i < STATS_SOURCE_COUNT && !*text; i++)
        text = st->error[i];
    snprintf(out, STATS_ERROR_MAX, "%s", text);
    pthread_mutex_unlock(&st->lock);
}
