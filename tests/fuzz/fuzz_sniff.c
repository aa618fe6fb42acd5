/* The first bytes of a tunnel: the answer does not depend on the pieces they come in, nor on
 * how much of them is looked at again. */
#include "proxy/tunnel.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

void fuzz_sniff(const uint8_t *data, size_t len)
{
    enum sniff whole = len ? tunnel_sniff(data, len, 0, TUNNEL_SNIFF_MAX) : SNIFF_MORE;
    enum sniff first = SNIFF_MORE;
    for (size_t n = 1; n <= len && first == SNIFF_MORE; n++) {
        uint8_t *piece = fuzz_copy(data, n);
        first = tunnel_sniff(piece, n, n - 1, TUNNEL_SNIFF_MAX);
        enum sniff again = tunnel_sniff(piece, n, 0, TUNNEL_SNIFF_MAX);
        CHECK(first == again, "going on %d, anew %d", (int)first, (int)again);
        free(piece);
    }
    CHECK(first == whole, "bytewise %d, at once %d", (int)first, (int)whole);
    for (size_t i = 0; whole == SNIFF_HTTP && data[i] != '\r' && data[i] != '\n'; i++)
        CHECK(data[i] >= 0x20 && data[i] != 0x7f, "byte %zu of a request line is %u", i, data[i]);
}
