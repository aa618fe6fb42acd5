/*
 * settings.h - the sync thread's own copy of what it needs from config and endpoint.
 *
 * Made by main, handed to the thread, which owns it from then on: the thread never
 * reads a config, so a reload may free one without asking it.
 */
#ifndef SYNC_SETTINGS_H
#define SYNC_SETTINGS_H
#include "sync/known.h"
#include "sync/reporter.h"
#include "sync/source.h"
#include <stdbool.h>
#include <sys/types.h>

struct breakers;
struct config;
struct strbuf;
struct sync_endpoint;

struct settings {
    const struct config *cfg; /* what it was made from: compared, never followed */
    bool enabled;             /* there is a control plane; else the texts below are NULL */
    bool retry;               /* what failed may have been mended: ask again at once */
    char *project_url;        /* "https://host/v1/projects/ID" */
    char *project_id;
    char *stream_url;
    char *ingest_url;
    char *breakers_url;         /* their metadata */
    char *routers_url;          /* likewise */
    char *batch_url;            /* state:batch */
    char *authorization;        /* "Authorization: Bearer ..."; secret; NULL without a key */
    char *abstract_socket;      /* NULL: TCP */
    pid_t peer_pid;             /* with abstract_socket */
    char *proxy;                /* NULL: none, whatever the environment says */
    char *ca_file;              /* NULL: the system's */
    struct known_options known; /* used is owned */
    struct reporter_options report;
    struct source_options source;
    int64_t metadata_interval_ms;
    bool selects_breakers; /* a route does so by metadata */
    bool selects_router;
};

/* Interns the routes' breaker names.  endpoint NULL: no control plane.  -1: errors says why. */
int settings_new(struct settings **out, const struct config *cfg,
                 const struct sync_endpoint *endpoint, struct breakers *b, struct strbuf *errors);
void settings_free(struct settings *s); /* NULL is fine; wipes the secrets */

/* May the standing stream go on under b?  And is it the same project at all? */
bool settings_same_stream(const struct settings *a, const struct settings *b);
bool settings_same_project(const struct settings *a, const struct settings *b);

#endif
