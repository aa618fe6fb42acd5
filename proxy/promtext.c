#include "proxy/promtext.h"

#include <math.h>

void prom_family(struct promtext *t, const char *name, const char *type, const char *help)
{
    strbuf_adds(t->out, "# HELP ");
    strbuf_adds(t->out, name);
    strbuf_addc(t->out, ' ');
    strbuf_adds(t->out, help);
    strbuf_adds(t->out, "\n# TYPE ");
    strbuf_adds(t->out, name);
    strbuf_addc(t->out, ' ');
    strbuf_adds(t->out, type);
    strbuf_addc(t->out, '\n');
}

void prom_series(struct promtext *t, const char *name, const char *suffix,
                 const struct prom_label *labels, unsigned count)
{
    strbuf_adds(t->out, name);
    strbuf_adds(t->out, suffix);
    for (unsigned i = 0; i < count; i++) {
        strbuf_addc(t->out, i == 0 ? '{' : ',');
        strbuf_adds(t->out, labels[i].name);
        strbuf_adds(t->out, "=\"");
        strbuf_add(t->out, labels[i].value.p, labels[i].value.len);
        strbuf_addc(t->out, '"');
    }
    if (count > 0)
        strbuf_addc(t->out, '}');
    strbuf_addc(t->out, ' ');
}

void prom_u64(struct promtext *t, uint64_t value)
{
    strbuf_addu(t->out, value);
    strbuf_addc(t->out, '\n');
    t->series++;
}

void prom_double(struct promtext *t, double value)
{
    if (isnan(value))
        strbuf_adds(t->out, "NaN");
    else if (isinf(value))
        strbuf_adds(t->out, value > 0 ? "+Inf" : "-Inf");
    else
        strbuf_json_number(t->out, value);
    strbuf_addc(t->out, '\n');
    t->series++;
}

/* One ASCII byte; false: it was replaced. */
static bool add_ascii(struct strbuf *out, char c)
{
    if (c == '\\' || c == '"')
        strbuf_add(out, (char[]){ '\\', c }, 2);
    else if (c == '\n')
        strbuf_adds(out, "\\n");
    else if ((unsigned char)c < 0x20 || c == 0x7f)
        strbuf_addc(out, '?');
    else
        strbuf_addc(out, c);
    return c == '\n' || !((unsigned char)c < 0x20 || c == 0x7f);
}

void prom_label_text(struct strbuf *out, const char *name, size_t len, uint32_t id)
{
    struct slice whole = { name, len };
    bool same = !slice_eq(whole, SLICE("_other"));
    size_t i = 0;

    while (i < len) {
        bool valid;
        size_t n = utf8_sequence(name + i, len - i, &valid);

        if (i + n > PROM_LABEL_MAX)
            break;
        if (n == 1 && valid)
            same &= add_ascii(out, name[i]);
        else
            strbuf_add(out, valid ? name + i : "\xef\xbf\xbd", valid ? n : 3);
        same &= valid;
        i += n;
    }
    if (!same || i < len) {
        strbuf_addc(out, '~');
        strbuf_addu(out, id);
    }
}
