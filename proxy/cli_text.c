#include "proxy/cli_call.h"
#include <string.h>

/* One character; *columns is how wide it shows. */
static size_t add_character(struct strbuf *out, const char *s, size_t len, size_t *columns)
{
    bool valid;
    size_t n = utf8_sequence(s, len, &valid);
    unsigned char c = (unsigned char)s[0];
    bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && n == 2 && (unsigned char)s[1] < 0xa0);
    if (!valid || control)
        strbuf_addc(out, '?');
    else
        strbuf_add(out, s, n);
    ++*columns;
    return n;
}

void cli_add_safe(struct strbuf *out, const char *text)
{
    size_t len = strlen(text), columns = 0;
    for (size_t i = 0; i < len;)
        i += add_character(out, text + i, len - i, &columns);
}

size_t cli_width(const char *text)
{
    struct strbuf ignored = STRBUF_INIT;
    size_t len = strlen(text), columns = 0;
    for (size_t i = 0; i < len;)
        i += add_character(&ignored, text + i, len - i, &columns);
    strbuf_free(&ignored);
    return columns;
}

void cli_add_row(struct strbuf *out, const char *label, const char *text)
{
    struct strbuf word = STRBUF_INIT;
    size_t len = strlen(text), column = CLI_LABEL_WIDTH;
    strbuf_addf(out, "%-*s", CLI_LABEL_WIDTH, label);
    for (size_t i = 0; i < len;) {
        size_t spaces = strspn(text + i, " "), columns = 0, end;
        i += spaces;
        end = i + strcspn(text + i, " ");
        strbuf_clear(&word);
        /* a word too long for any line is cut where the line ends */
        while (i < end && columns < CLI_COLUMNS - CLI_LABEL_WIDTH)
            i += add_character(&word, text + i, end - i, &columns);
        if (column + spaces + columns > CLI_COLUMNS && column > CLI_LABEL_WIDTH) {
            strbuf_addf(out, "\n%*s", CLI_LABEL_WIDTH, "");
            column = CLI_LABEL_WIDTH;
            spaces = 0;
        }
        strbuf_addf(out, "%*s%s", (int)spaces, "", strbuf_str(&word));
        column += spaces + columns;
    }
    strbuf_addc(out, '\n');
    strbuf_free(&word);
}

void cli_add_time(struct strbuf *out, const char *time)
{
    const char *fraction = strchr(time, '.');
    if (fraction)
        strbuf_addf(out, "%.*sZ", (int)(fraction - time), time);
    else
        strbuf_adds(out, time);
}

void cli_add_duration(struct strbuf *out, double ms)
{
    static const struct {
        long long seconds;
        char unit;
    } units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
    long long left = ms < 0 ? 0 : (long long)((ms + 999) / 1000);
    unsigned shown = 0;
    for (unsigned i = 0; i < 4 && shown < 2; i++) {
        long long n = left / units[i].seconds;
        left %= units[i].seconds;
        if (n == 0 && (shown > 0 || units[i].unit != 's'))
            continue;
        strbuf_addf(out, "%s%lld%c", shown ? " " : "", n, units[i].unit);
        shown++;
    }
}
