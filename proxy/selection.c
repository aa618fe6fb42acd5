#include "proxy/selection.h"
#include "base/base.h"
#include "base/log.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "config/catalog.h"
#include "config/resolve.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "sync/sync.h"
#include <stdlib.h>
#include <string.h>

static void log_warnings(struct selection *s, const struct strbuf *warnings)
{
    uint64_t hash = warnings->len ? keyed_hash(strbuf_str(warnings), warnings->len) : 0;
    char *save = NULL, *copy;

    if (hash == s->told)
        return; /* the same as last time */
    s->told = hash;
    copy = xstrdup(strbuf_str(warnings));
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        log_event(LOG_WARNING, "config", "selection.warning", line, NULL);
    free(copy);
}

void selection_apply(struct selection *s, const struct proxy *p, struct config *cfg,
                     const char *project_id)
{
    struct catalog *breakers = NULL, *routers = NULL;
    struct strbuf warnings = STRBUF_INIT;

    if (p->sync != NULL) {
        s->version = sync_lists_version(p->sync);
        sync_lists(p->sync, project_id, &breakers, &routers);
    }
    config_resolve(cfg, breakers, routers, &warnings);
    log_warnings(s, &warnings);
    strbuf_free(&warnings);
    catalog_unref(breakers);
    catalog_unref(routers);
}

bool selection_is_due(const struct selection *s, const struct proxy *p)
{
    const struct config *cfg = atomic_load(&p->snapshot)->cfg;

    return p->sync != NULL && s->version != sync_lists_version(p->sync) &&
           (config_selects_breakers(cfg) || config_selects_router(cfg));
}
