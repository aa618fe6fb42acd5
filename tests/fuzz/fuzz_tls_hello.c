/* The first bytes of a connection: a server name within them, or none; the answer does not
 * depend on the pieces they come in. */
#include "proxy/tls_hello.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

static enum tls_hello_result parse(struct tls_hello *h, const uint8_t *data, size_t len,
                                   size_t piece)
{
    enum tls_hello_result result = TLS_HELLO_MORE;
    *h = (struct tls_hello){ .seen = 0 };
    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        uint8_t *copy = fuzz_copy(data + at, n);
        result = tls_hello_push(h, copy, n);
        free(copy);
    }
    return result;
}

void fuzz_tls_hello(const uint8_t *data, size_t len)
{
    struct tls_hello whole, pieces;
    enum tls_hello_result at_once = parse(&whole, data, len, len + 1);
    for (size_t piece = 1; piece <= 7; piece += 3) {
        enum tls_hello_result cut = parse(&pieces, data, len, piece);
        struct slice a = tls_hello_name(&whole), b = tls_hello_name(&pieces);
        CHECK(cut == at_once, "pieces of %zu: %d, at once %d", piece, (int)cut, (int)at_once);
        CHECK(slice_eq(a, b), "another name");
    }
    struct slice name = tls_hello_name(&whole);
    CHECK(name.len == 0 || memmem(data, len, name.p, 1), "a name from elsewhere");
    CHECK(name.len == 0 || at_once == TLS_HELLO_DONE, "a name too early");
}
