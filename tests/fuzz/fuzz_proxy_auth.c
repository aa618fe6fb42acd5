/* Proxy-Authorization: what is let in says, to a second reader, exactly the name and token. */
#include "proxy/auth.h"
#include "tests/fuzz/fuzz.h"
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#define CREDENTIALS "a:open sesame"

/* The bytes behind "Basic " as another library reads them. */
static void check_second_reading(const char *value, size_t len)
{
    unsigned char text[512];
    const char *coded = value + 6;
    while (*coded == ' ')
        coded++;
    size_t n = len - (size_t)(coded - value), padding = 0;
    CHECK(n % 4 == 0 && n > 0 && n / 4 * 3 <= sizeof(text), "%zu digits were let in", n);
    int got = EVP_DecodeBlock(text, (const unsigned char *)coded, (int)n);
    while (padding < 2 && coded[n - 1 - padding] == '=')
        padding++;
    CHECK(got - (int)padding == (int)sizeof(CREDENTIALS) - 1 &&
              memcmp(text, CREDENTIALS, sizeof(CREDENTIALS) - 1) == 0,
          "\"%s\" was let in", value);
}

void fuzz_proxy_auth(const uint8_t *data, size_t len)
{
    struct proxy_user user = { .name = (char[]){ "a" } };
    char *value = fuzz_string(data, len), *exact = fuzz_copy(data, len);
    SHA256((const unsigned char *)CREDENTIALS + 2, sizeof(CREDENTIALS) - 3, user.token_sha256);
    if (auth_check(&user, 1, (struct slice){ exact, len }))
        check_second_reading(value, len);
    free(value);
    free(exact);
}
