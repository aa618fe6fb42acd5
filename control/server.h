/*
 * server.h - the HTTP side of the control plane: evhttp in front of one store.
 *
 * Everything runs on the given event loop's thread, except server_counters.  Requests
 * are fenced: 8 KiB heads, 8 MiB bodies, SERVER_CONNECTIONS_MAX connections, 60 s for
 * an idle one, connections of this process only.
 *
 *   GET      /v1/projects/{id}/breakers/state:stream     key
 *   POST     /v1/projects/{id}/ingest                    signature
 *   GET      /v1/projects/{id}/breakers/metadata         key
 *   GET      /v1/projects/{id}/routers/metadata          key
 *   GET|HEAD /v1/projects/{id}/status                    key
 *   POST     /v1/projects/{id}/breakers/state:batch      key
 *   GET      /v1/projects/{id}/breakers/{breaker}/state  key
 */
#ifndef CONTROL_SERVER_H
#define CONTROL_SERVER_H
#include "control/control.h"
#include "control/ingest.h"
#include <stdint.h>

struct config;
struct event_base;
struct server; /* opaque */

#define SERVER_CONNECTIONS_MAX 64
#define SERVER_PROJECT_SIZE    64
#define SERVER_KEY_SIZE        80

struct server_keys {
    char project_id[SERVER_PROJECT_SIZE];
    char api_key[SERVER_KEY_SIZE];
    uint8_t ingest[INGEST_KEY_BYTES];
};

/* Listens on listen_fd, which is bound and now the server's to close, also on failure.
 * Borrows keys.  NULL: errno. */
struct server *server_new(struct event_base *base, int listen_fd, const struct server_keys *keys);
void server_free(struct server *srv); /* cuts every connection; NULL is fine */

/* Borrows cfg until the next call. */
void server_configure(struct server *srv, const struct config *cfg);

/* Any thread. */
void server_counters(const struct server *srv, struct control_stats *out);

#endif
