/*
 * auth.h - who asks: Proxy-Authorization, scheme Basic (pure; RFC 9110 11.7, RFC 7617).
 *
 * The configuration has SHA-256 hashes of random tokens; what a client sends is hashed and
 * compared with every one of them in constant time.
 */
#ifndef PROXY_AUTH_H
#define PROXY_AUTH_H
#include "base/slice.h"
#include "config/config.h"
#include <stdbool.h>

/* value: of the one Proxy-Authorization field.  True: name and token are those of a user. */
bool auth_check(const struct proxy_user *users, size_t count, struct slice value);

#endif
