#include "sync/client.h"
#include "base/base.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/socket.h>

#define CONNECT_TIMEOUT_MS   10000L
#define REUSE_WITHIN_S       4L /* servers close idle connections after 5 s and more */
#define KEEPALIVE_IDLE_S     30L
#define KEEPALIVE_INTERVAL_S 10L
#define KEEPALIVE_PROBES     3

static bool peer_is(int fd, pid_t pid)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid == pid;
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *addr)
{
    struct client *c = arg;
    (void)purpose;
    c->fd = socket(addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);
    return c->fd;
}

static int on_socket_options(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    const struct client *c = arg;
    (void)purpose;
    int probes = KEEPALIVE_PROBES; /* libcurl sets the times but not this */
    if (!c->settings->abstract_socket)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    return CURL_SOCKOPT_OK;
}

/* Connected, nothing sent yet.  Names of abstract sockets are free for all to take, so
 * who listens there is checked before a key is sent. */
static int on_before_request(void *arg, char *remote, char *local, int remote_port, int local_port)
{
    struct client *c = arg;
    (void)remote;
    (void)local;
    (void)remote_port;
    (void)local_port;
    if (c->once && c->requests++ > 0)
        return CURL_PREREQFUNC_ABORT;
    /* fd -1: a connection of an earlier transfer, which passed here then */
    if (!c->settings->abstract_socket || c->fd < 0 || peer_is(c->fd, c->settings->peer_pid))
        return CURL_PREREQFUNC_OK;
    c->wrong_peer = true;
    return CURL_PREREQFUNC_ABORT;
}

static CURLcode set_transport(struct client *c, const struct settings *s)
{
    CURL *e = c->easy;
    CURLcode rc = CURLE_OK;
#define SET(option, value) (rc = rc ? rc : curl_easy_setopt(e, option, value))
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SET(CURLOPT_OPENSOCKETDATA, c);
    SET(CURLOPT_SOCKOPTFUNCTION, on_socket_options);
    SET(CURLOPT_SOCKOPTDATA, c);
    SET(CURLOPT_PREREQFUNCTION, on_before_request);
    SET(CURLOPT_PREREQDATA, c);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    SET(CURLOPT_QUICK_EXIT, 1L); /* a stuck name server must not hold the thread up */
    SET(CURLOPT_MAXAGE_CONN, REUSE_WITHIN_S);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    SET(CURLOPT_TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    /* both always: unset, libcurl asks the environment */
    SET(CURLOPT_PROXY, s->proxy ? s->proxy : "");
    SET(CURLOPT_NOPROXY, s->proxy ? "" : "*");
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    if (s->abstract_socket)
        SET(CURLOPT_ABSTRACT_UNIX_SOCKET, s->abstract_socket);
    if (s->ca_file)
        SET(CURLOPT_CAINFO, s->ca_file);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    return rc;
}

static CURLcode set_http(struct client *c, const char *url)
{
    CURL *e = c->easy;
    CURLcode rc = CURLE_OK;
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_HTTP09_ALLOWED, 0L);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_USERAGENT, "tripswitch-proxy/" TRIPSWITCH_VERSION);
    SET(CURLOPT_ERRORBUFFER, c->error);
    return rc;
#undef SET
}

int client_open(struct client *c, const struct settings *s, const char *url)
{
    *c = (struct client){ .settings = s, .fd = -1 };
    c->easy = curl_easy_init();
    if (!c->easy)
        return -1;
    if (set_transport(c, s) == CURLE_OK && set_http(c, url) == CURLE_OK)
        return 0;
    client_close(c);
    return -1;
}

int client_add_header(struct client *c, const char *line)
{
    struct curl_slist *grown = curl_slist_append(c->headers, line);
    if (!grown)
        return -1;
    c->headers = grown;
    return curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers) == CURLE_OK ? 0 : -1;
}

void client_close(struct client *c)
{
    if (c->easy)
        curl_easy_cleanup(c->easy);
    for (struct curl_slist *h = c->headers; h; h = h->next)
        OPENSSL_cleanse(h->data, strlen(h->data));
    curl_slist_free_all(c->headers);
    c->easy = NULL;
    c->headers = NULL;
}

int client_status(const struct client *c)
{
    long code = 0;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &code);
    return code >= 200 && code < 1000 ? (int)code : 0;
}

const char *client_header(const struct client *c, const char *name)
{
    struct curl_header *h;
    if (curl_easy_header(c->easy, name, 0, CURLH_HEADER, -1, &h) != CURLHE_OK)
        return NULL;
    return h->value;
}

const char *client_error(const struct client *c, CURLcode rc)
{
    if (c->wrong_peer)
        return "another process listens on the control plane's socket";
    if (c->requests > 1)
        return "the connection closed before an answer";
    return c->error[0] ? c->error : curl_easy_strerror(rc);
}
