/* One piece of text into one field. */
#include "config/set.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/suggest.h"
#include "config/value.h"
#include <string.h>

/* All lists of config.h look like this; read and written with memcpy. */
struct any_list {
    void *items;
    size_t count;
};

static void *list_grow(struct arena *a, void *items, size_t count, size_t item_size)
{
    if (count & (count - 1)) /* room was made for the next power of two */
        return items;
    void *bigger = arena_alloc(a, (count ? count * 2 : 1) * item_size);
    if (count)
        memcpy(bigger, items, count * item_size);
    return bigger;
}

static void list_add(struct arena *a, void *field, const void *item, size_t size)
{
    struct any_list list;

    memcpy(&list, field, sizeof(list));
    list.items = list_grow(a, list.items, list.count, size);
    memcpy((char *)list.items + list.count++ * size, item, size);
    memcpy(field, &list, sizeof(list));
}

void map_set(struct arena *a, struct name_value_list *m, char *name, char *value)
{
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->items[i].name, name) == 0) {
            m->items[i].value = value;
            return;
        }
    }
    struct name_value item = { name, value };
    list_add(a, m, &item, sizeof(item));
}

/* -- one piece of text --------------------------------------------------------------- */

static void bound(const struct config_option *o, int64_t n, struct strbuf *out)
{
    if (o->type == TYPE_DURATION)
        value_format_duration(out, n);
    else if (o->type == TYPE_SIZE)
        value_format_size(out, n);
    else
        strbuf_addf(out, "%lld", (long long)n);
}

static int check_range(const struct config_option *o, const char *text, double n,
                       struct strbuf *why)
{
    bool low = n < (double)o->min;

    if (!low && n <= (double)o->max)
        return 0;
    strbuf_adds(why, text);
    strbuf_adds(why, low ? " is below " : " is above ");
    bound(o, low ? o->min : o->max, why);
    return -1;
}

static int set_number(const struct config_option *o, const char *text, void *field,
                      struct strbuf *why)
{
    int64_t n = 0;
    int failed;

    if (o->flags & OPTION_OFF && strcmp(text, "off") == 0) {
        n = OFF;
        memcpy(field, &n, sizeof(n));
        return 0;
    }
    if (o->type == TYPE_DURATION)
        failed = value_duration(text, &n, why);
    else if (o->type == TYPE_SIZE)
        failed = value_size(text, &n, why);
    else
        failed = value_int(text, &n, why);
    if (failed && o->flags & OPTION_OFF)
        strbuf_adds(why, ", or \"off\"");
    if (failed || check_range(o, text, (double)n, why))
        return -1;
    memcpy(field, &n, sizeof(n));
    return 0;
}

/* 0: *index is the choice's number. */
static int find_choice(struct arena *a, const struct config_option *o, const char *text,
                       unsigned *index, struct strbuf *why)
{
    struct suggestion near;
    const char *p = o->choices;

    suggest_start(&near, text);
    for (*index = 0; *p; ++*index) {
        size_t len = strcspn(p, "|");
        char *choice = arena_strndup(a, p, len);
        if (strcmp(choice, text) == 0)
            return 0;
        suggest_offer(&near, choice);
        p += len + (p[len] == '|');
    }
    report_quote(why, text);
    strbuf_adds(why, " is not one of ");
    for (p = o->choices; *p; p++)
        strbuf_adds(why, *p == '|' ? ", " : (char[2]){ *p, 0 });
    if (near.best)
        strbuf_addf(why, "; did you mean \"%s\"?", near.best);
    return -1;
}

static int set_choice(struct arena *a, const struct config_option *o, char *text, void *field,
                      struct strbuf *why)
{
    unsigned index;

    if (find_choice(a, o, text, &index, why))
        return -1;
    if (o->type == TYPE_WORD)
        memcpy(field, &text, sizeof(text));
    else
        memcpy(field, &index, sizeof(index)); /* an enum in this ABI */
    return 0;
}

_Static_assert(sizeof(enum mode) == sizeof(unsigned), "set_choice stores an unsigned");

void set_control_url(struct config *cfg, char *url)
{
    cfg->control.url = url;
    cfg->control.embedded = url && strcmp(url, "embedded") == 0;
}

static int set_string(struct arena *a, const struct config_option *o, char *text, void *field,
                      struct strbuf *why)
{
    if (!*text && o->flags & OPTION_NULL)
        text = NULL;
    else if (o->check && o->check(a, &text, why))
        return -1;
    if (o->type == TYPE_CONTROL_URL)
        set_control_url(field, text);
    else
        memcpy(field, &text, sizeof(text));
    return 0;
}

static int add_item(struct arena *a, const struct config_option *o, char *text, void *field,
                    struct strbuf *why)
{
    union {
        struct listen_addr listen;
        struct cidr cidr;
        struct port_range ports;
    } item;

    switch (o->type) {
    case TYPE_STRINGS:
        if (o->check && o->check(a, &text, why))
            return -1;
        list_add(a, field, &text, sizeof(text));
        return 0;
    case TYPE_LISTEN:
        if (value_listen(text, a, &item.listen, why))
            return -1;
        list_add(a, field, &item.listen, sizeof(item.listen));
        return 0;
    case TYPE_CIDRS:
        if (value_cidr(text, &item.cidr, why))
            return -1;
        list_add(a, field, &item.cidr, sizeof(item.cidr));
        return 0;
    case TYPE_PORTS:
        if (value_port_range(text, &item.ports, why))
            return -1;
        list_add(a, field, &item.ports, sizeof(item.ports));
        return 0;
    case TYPE_STATUSES:
        return value_status(text, field, why);
    case TYPE_OUTCOMES:
        return value_failure(text, field, why);
    default:
        return BUG(!option_is_list(o)) ? -1 : 0;
    }
}

int set_piece(struct arena *a, const struct config_option *o, char *text, void *field,
              struct strbuf *why)
{
    switch (o->type) {
    case TYPE_BOOL:
        return value_bool(text, field, why);
    case TYPE_NUMBER: {
        double n;
        if (value_number(text, &n, why) || check_range(o, text, n, why))
            return -1;
        memcpy(field, &n, sizeof(n));
        return 0;
    }
    case TYPE_INT:
    case TYPE_DURATION:
    case TYPE_SIZE:
        return set_number(o, text, field, why);
    case TYPE_ENUM:
    case TYPE_WORD:
        return set_choice(a, o, text, field, why);
    case TYPE_STRING:
    case TYPE_CONTROL_URL:
        return set_string(a, o, text, field, why);
    default:
        return add_item(a, o, text, field, why);
    }
}

void set_clear(const struct config_option *o, void *field)
{
    size_t size = o->type == TYPE_STATUSES   ? sizeof(struct status_set)
                  : o->type == TYPE_OUTCOMES ? sizeof(uint32_t)
                                             : sizeof(struct any_list);
    memset(field, 0, size);
}

size_t set_count(const struct config_option *o, const void *field)
{
    struct any_list list;

    if (o->type == TYPE_STATUSES || o->type == TYPE_OUTCOMES)
        return 0;
    memcpy(&list, field, sizeof(list));
    return list.count;
}
