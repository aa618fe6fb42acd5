#include "control/template.h"

#include "base/strbuf.h"

static const char mark[] = "{host}";
#define MARK_LEN (sizeof(mark) - 1)

static size_t count_marks(const char *tmpl)
{
    size_t n = 0;

    for (const char *p = tmpl; (p = strstr(p, mark)) != NULL; p += MARK_LEN)
        n++;
    return n;
}

bool template_has_host(const char *tmpl)
{
    return strstr(tmpl, mark) != NULL;
}

size_t template_literal_len(const char *tmpl)
{
    return strlen(tmpl) - count_marks(tmpl) * MARK_LEN;
}

void template_expand(const char *tmpl, struct slice host, struct strbuf *out)
{
    const char *at;

    while ((at = strstr(tmpl, mark)) != NULL) {
        strbuf_add(out, tmpl, (size_t)(at - tmpl));
        strbuf_add(out, host.p, host.len);
        tmpl = at + MARK_LEN;
    }
    strbuf_adds(out, tmpl);
}

/* Does tmpl, with this host, spell exactly name?  Lengths are known to agree. */
static bool spells(const char *tmpl, struct slice host, const char *name)
{
    const char *at;

    while ((at = strstr(tmpl, mark)) != NULL) {
        size_t literal = (size_t)(at - tmpl);

        if (memcmp(name, tmpl, literal) != 0 || memcmp(name + literal, host.p, host.len) != 0)
            return false;
        name += literal + host.len;
        tmpl = at + MARK_LEN;
    }
    return strcmp(name, tmpl) == 0;
}

/* All hosts in one name are the same, so its length tells how long they are. */
bool template_match(const char *tmpl, const char *name, struct slice *host)
{
    size_t marks = count_marks(tmpl);
    size_t literal = template_literal_len(tmpl);
    size_t len = strlen(name);
    struct slice found;

    if (marks == 0 || len <= literal || (len - literal) % marks != 0)
        return false;
    found.p = name + (strstr(tmpl, mark) - tmpl);
    found.len = (len - literal) / marks;
    if (!spells(tmpl, found, name))
        return false;
    *host = found;
    return true;
}
