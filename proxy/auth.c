#include "proxy/auth.h"
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

#define CREDENTIALS_MAX 384 /* name, colon and token, decoded */

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* One spelling only: padded to whole groups, nothing in the bits that are left over. */
static bool base64_decode(struct slice in, uint8_t *out, size_t cap, size_t *len)
{
    size_t padding = 0;
    *len = 0;
    while (padding < 2 && padding < in.len && in.p[in.len - 1 - padding] == '=')
        padding++;
    if (in.len % 4 != 0 || in.len / 4 * 3 > cap)
        return false;
    uint32_t bits = 0;
    for (size_t i = 0; i < in.len; i++) {
        int v = i < in.len - padding ? base64_value(in.p[i]) : 0;
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        if (i % 4 != 3)
            continue;
        size_t n = i == in.len - 1 ? 3 - padding : 3;
        for (size_t k = 0; k < n; k++)
            out[(*len)++] = (uint8_t)(bits >> (16 - 8 * k));
        if (n < 3 && bits & ((1u << 8 * (3 - n)) - 1))
            return false;
        bits = 0;
    }
    return true;
}

/* Looks at every user, whoever it was. */
static bool is_user(const struct proxy_user *users, size_t count, struct slice name,
                    const uint8_t digest[32])
{
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        bool same_token = CRYPTO_memcmp(users[i].token_sha256, digest, 32) == 0;
        bool same_name = slice_eq(slice_of(users[i].name), name);
        found |= same_token & same_name;
    }
    return found;
}

bool auth_check(const struct proxy_user *users, size_t count, struct slice value)
{
    static const char scheme[] = "Basic ";
    uint8_t text[CREDENTIALS_MAX], digest[32];
    size_t len = 0;
    if (value.len < sizeof(scheme) || strncasecmp(value.p, scheme, sizeof(scheme) - 1) != 0)
        return false;
    struct slice coded = { value.p + sizeof(scheme) - 1, value.len - sizeof(scheme) + 1 };
    while (coded.len > 0 && coded.p[0] == ' ')
        coded.p++, coded.len--;
    bool known = false;
    uint8_t *colon = base64_decode(coded, text, sizeof(text), &len) ? memchr(text, ':', len) : NULL;
    if (colon) {
        struct slice name = { (const char *)text, (size_t)(colon - text) };
        SHA256(colon + 1, len - name.len - 1, digest);
        known = is_user(users, count, name, digest);
    }
    OPENSSL_cleanse(text, sizeof(text));
    return known;
}
