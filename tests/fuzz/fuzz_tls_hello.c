/* The first bytes of a redirected connection: a server name within them, or none; the answer
 * does not depend on the pieces they come in. */
#include "proxy/tls_hello.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

static enum tls_hello parse(const uint8_t *data, size_t len, char *name, size_t *name_len)
{
    struct slice found = { NULL, 0 };
    uint8_t *copy = fuzz_copy(data, len);
    enum tls_hello result = tls_hello_parse(copy, len, &found);
    *name_len = 0;
    if (result == TLS_HELLO_DONE && found.len > 0) {
        const char *start = (const char *)copy;
        CHECK(found.p >= start && found.p + found.len <= start + len, "a name from elsewhere");
        memcpy(name, found.p, found.len);
        *name_len = found.len;
    }
    free(copy);
    return result;
}

void fuzz_tls_hello(const uint8_t *data, size_t len)
{
    char *name = malloc(len + 1), *first_name = malloc(len + 1);
    size_t name_len, first_len = 0;
    enum tls_hello whole = parse(data, len, name, &name_len), first = TLS_HELLO_MORE;
    for (size_t n = 1; n <= len && first == TLS_HELLO_MORE; n++)
        first = parse(data, n, first_name, &first_len);
    CHECK(len == 0 || first == whole, "bytewise %d, at once %d", (int)first, (int)whole);
    CHECK(len == 0 || (name_len == first_len && memcmp(name, first_name, name_len) == 0),
          "another name");
    free(name);
    free(first_name);
}
