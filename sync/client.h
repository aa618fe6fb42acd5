/*
 * client.h - one libcurl handle, set up so that it can only do what we mean.
 *
 * HTTP/1.1 over http or https, no redirects, no signals, the proxy of our own
 * configuration or none (never the environment's, which may name this very program).
 * Over an abstract Unix socket the process at the other end is checked before a byte,
 * and with it a key, is sent.
 */
#ifndef SYNC_CLIENT_H
#define SYNC_CLIENT_H
#include "sync/settings.h"
#include <curl/curl.h>
#include <stdbool.h>

struct client {
    CURL *easy;                      /* owned */
    struct curl_slist *headers;      /* owned; wiped, one holds a key */
    const struct settings *settings; /* borrowed; must outlive the transfer */
    int fd;            /* the connection opened for this transfer; -1: none, or a reused one */
    bool once;         /* never sent twice: libcurl would repeat even a POST by itself when a
                          reused connection closes without an answer */
    unsigned requests; /* begun so far, if once */
    bool wrong_peer;   /* the socket's other end was another process */
    char error[CURL_ERROR_SIZE];
};

/* -1: out of memory. */
int client_open(struct client *c, const struct settings *s, const char *url);
/* -1: out of memory; then the handle must not be used. */
int client_add_header(struct client *c, const char *line);
void client_close(struct client *c); /* not in a multi any more; twice is fine */

/* The final answer's status; 0: none came. */
int client_status(const struct client *c);
/* The value of a header of the last answer, or NULL; valid until the next transfer. */
const char *client_header(const struct client *c, const char *name);
/* What went wrong, in words without secrets. */
const char *client_error(const struct client *c, CURLcode rc);

#endif
