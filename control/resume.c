#include "control/resume.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "control/persist.h"
#include "control/state_file.h"
#include <stdio.h>

static void warn_refused(const char *path, const struct strbuf *why)
{
    struct strbuf msg = STRBUF_INIT;
    bool aside = state_file_put_aside(path) == 0;

    strbuf_addf(&msg, "embedded.state_file is not used: %s; every breaker starts closed%s",
                strbuf_str(why), aside ? ", and the file is kept with .bad behind its name" : "");
    log_event(LOG_WARNING, "control", "state_file.refused", strbuf_str(&msg), "path", path, NULL);
    strbuf_free(&msg);
}

static void tell_resumed(const char *path, size_t resumed, size_t dropped)
{
    char r[24];
    char d[24];

    if (resumed + dropped == 0)
        return;
    snprintf(r, sizeof(r), "%zu", resumed);
    snprintf(d, sizeof(d), "%zu", dropped);
    log_event(LOG_INFO, "control", "state_file.resumed",
              "breakers that were not closed go on as the last run left them", "path", path,
              "resumed", r, "dropped", d, NULL);
}

static void resume_all(struct store *s, const struct persist_states *states, const char *path,
                       struct store_now now)
{
    size_t resumed = 0;
    size_t dropped = 0;

    for (size_t i = 0; i < states->count; i++) {
        const struct persist_entry *e = &states->entries[i];

        if (e->state == MACHINE_CLOSED)
            continue;
        if (store_resume(s, e, now))
            resumed++;
        else
            dropped++; /* no longer configured, or past limits.auto_breakers */
    }
    tell_resumed(path, resumed, dropped);
}

void resume_from_file(struct store *s, const char *path, struct store_now now)
{
    struct strbuf text = STRBUF_INIT;
    struct strbuf why = STRBUF_INIT;
    struct persist_states states;
    int rc = state_file_read(path, PERSIST_BYTES_MAX, &text, &why);

    if (rc == 0 && text.len > 0) /* an empty one was only made, for example by touch */
        rc = persist_decode(strbuf_str(&text), text.len, now.wall_ms, &states, &why);
    else if (rc == 0)
        rc = 1;
    if (rc == 0) {
        resume_all(s, &states, path, now);
        persist_free(&states);
    } else if (rc < 0) {
        warn_refused(path, &why);
    }
    strbuf_free(&text);
    strbuf_free(&why);
}

/* To the file. */

struct walk {
    const struct store *store;
    struct store_now now;
    size_t pos;
};

static bool next_entry(void *arg, struct persist_entry *entry)
{
    struct walk *w = arg;

    return store_unclosed_next(w->store, &w->pos, w->now, entry);
}

void resume_write(void *store, struct strbuf *out)
{
    struct walk w = {
        .store = store,
        .now = { .mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms() },
    };

    persist_encode(next_entry, &w, w.now.wall_ms, out);
}
