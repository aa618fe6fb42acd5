#include "proxy/tls_hello.h"
#include <stdbool.h>

enum { RECORD_HANDSHAKE = 0x16, CLIENT_HELLO = 1, EXT_SERVER_NAME = 0, NAME_HOST = 0 };

/* What is left to read; a read past the end marks it bad and yields 0. */
struct reader {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static unsigned take(struct reader *r, size_t bytes)
{
    unsigned n = 0;
    if (r->left < bytes) {
        r->bad = true;
        r->left = 0;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++)
        n = n << 8 | r->p[i];
    r->p += bytes;
    r->left -= bytes;
    return n;
}

/* The next len bytes, as a reader of their own. */
static struct reader part(struct reader *r, size_t len)
{
    struct reader sub = { r->p, len, false };
    if (r->bad || r->left < len) {
        r->bad = true;
        r->left = 0;
        return (struct reader){ .bad = true };
    }
    r->p += len;
    r->left -= len;
    return sub;
}

static struct slice read_server_name(struct reader ext)
{
    struct reader list = part(&ext, take(&ext, 2));
    while (!list.bad && list.left > 0) {
        unsigned type = take(&list, 1);
        struct reader name = part(&list, take(&list, 2));
        if (!name.bad && type == NAME_HOST)
            return (struct slice){ (const char *)name.p, name.left };
    }
    return (struct slice){ "", 0 };
}

static struct slice read_hello(struct reader hello)
{
    take(&hello, 2);               /* legacy_version */
    part(&hello, 32);              /* random */
    part(&hello, take(&hello, 1)); /* legacy_session_id */
    part(&hello, take(&hello, 2)); /* cipher_suites */
    part(&hello, take(&hello, 1)); /* legacy_compression_methods */
    struct reader extensions = part(&hello, take(&hello, 2));
    while (!extensions.bad && extensions.left > 0) {
        unsigned type = take(&extensions, 2);
        struct reader ext = part(&extensions, take(&extensions, 2));
        if (!ext.bad && type == EXT_SERVER_NAME)
            return read_server_name(ext);
    }
    return (struct slice){ "", 0 };
}

enum tls_hello tls_hello_parse(const uint8_t *data, size_t len, struct slice *name)
{
    *name = (struct slice){ "", 0 };
    if (len > 0 && data[0] != RECORD_HANDSHAKE)
        return TLS_HELLO_NO;
    if (len > 1 && data[1] != 3)
        return TLS_HELLO_NO;
    if (len < 6)
        return TLS_HELLO_MORE;
    if (data[5] != CLIENT_HELLO)
        return TLS_HELLO_NO;
    size_t record = (size_t)data[3] << 8 | data[4];
    if (record < 4)
        return TLS_HELLO_NO;
    if (len < 5 + record)
        return TLS_HELLO_MORE;
    struct reader r = { data + 6, record - 1, false };
    struct reader hello = part(&r, take(&r, 3));
    if (!hello.bad)
        *name = read_hello(hello);
    return TLS_HELLO_DONE;
}
