/* Signed posts: first line the timestamp, second the signature, then the body.  No bytes that
 * a stranger sends are taken for signed, and what sync signs is. */
#include "control/ingest.h"
#include "sync/batch.h"
#include "tests/fuzz/fuzz.h"
#include <stdio.h>
#include <stdlib.h>

#define NOW_MS INT64_C(1700000000000)

void fuzz_ingest_verify(const uint8_t *data, size_t len)
{
    static const uint8_t key[INGEST_KEY_BYTES] = { 0x5a, 0x01, 0xff };
    struct fuzz_reader r = { data, len };
    struct slice ts_line = fuzz_line(&r), sig_line = fuzz_line(&r), rest = fuzz_rest(&r);
    char *ts = fuzz_string(ts_line.p, ts_line.len), *sig = fuzz_string(sig_line.p, sig_line.len);
    char *body = fuzz_copy(rest.p, rest.len);
    char ours[BATCH_SIG_SIZE], header[BATCH_SIG_SIZE + 3];
    struct ingest_error err = { 0 };
    if (ingest_verify(key, ts, sig, body, rest.len, NOW_MS, &err) == 0)
        CHECK(*ts == '0' || /* signed as it was written, which is not how we write */
                  (batch_sign(key, strtoll(ts, NULL, 10), body, rest.len, ours) == 0 &&
                   strcmp(sig + 3, ours) == 0),
              "a signature that is not ours was taken: %s", sig);
    else
        CHECK(err.status == 401 && err.code && *err.message, "status %d", err.status);

    CHECK(batch_sign(key, NOW_MS, body, rest.len, ours) == 0, "signing");
    snprintf(header, sizeof(header), "v1=%s", ours);
    CHECK(ingest_verify(key, "1700000000000", header, body, rest.len, NOW_MS, &err) == 0,
          "our own signature is refused: %s", err.message);
    free(ts);
    free(sig);
    free(body);
}
