/*
 * tls_hello.h - the server name in a TLS ClientHello (pure; looked at, never altered).
 */
#ifndef PROXY_TLS_HELLO_H
#define PROXY_TLS_HELLO_H
#include "base/slice.h"
#include <stddef.h>
#include <stdint.h>

enum tls_hello { TLS_HELLO_MORE, TLS_HELLO_DONE, TLS_HELLO_NO };

/* data: the first bytes of a connection.  DONE: it is a ClientHello (RFC 8446 4.1.2); *name
 * points at its server_name (RFC 6066 3) within data, or is empty if it has none or
 * the message is spread over several records.  MORE: not all of it is here.  NO: not TLS. */
enum tls_hello tls_hello_parse(const uint8_t *data, size_t len, struct slice *name);

#endif
