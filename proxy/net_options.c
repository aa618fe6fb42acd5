#include "proxy/net_options.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "config/report.h"
#include "config/suggest.h"
#include "config/value.h"
#include <stdlib.h>
#include <string.h>

const char *net_backend_name(enum net_backend b)
{
    switch (b) {
    case NET_NFT:
        return "nft";
    case NET_IPTABLES_NFT:
        return "iptables-nft";
    case NET_IPTABLES_LEGACY:
        return "iptables-legacy";
    case NET_BACKEND_COUNT:
        return "auto";
    }
    return "?";
}

void net_options_usage(struct strbuf *out)
{
    strbuf_adds(
        out, "Usage: tripswitch-proxy init-net --apply | --print | --remove | --verify [flags]\n\n"
             "Redirects this network namespace's outgoing TCP connections to the proxy's\n"
             "transparent listener.  Needs CAP_NET_ADMIN, with iptables CAP_NET_RAW too.\n\n"
             "  --apply               put the rules in place, instead of those of an earlier run\n"
             "  --print               show them; needs no rights\n"
             "  --remove              take them away, whichever backend made them\n"
             "  --verify              are the rules of these flags in place, and is a connection\n"
             "                        captured by the proxy, which must listen by then?\n"
             "                        May follow --apply.  Exit 0 yes, 1 no\n\n"
             "  --uid N               what this user opens is not captured: the proxy's own\n"
             "                        (65532, the user of the image, unless --gid is given)\n"
             "  --gid N               the same for a group; with --uid, either is enough\n"
             "  --port P              where captured connections go (3129)\n"
             "  --ports LIST          which ports are captured (80,443), such as 80,8000-8099\n"
             "  --exclude-ports LIST  never these; nor 3128, 3130, 3131 and P\n"
             "  --exclude-cidr LIST   never connections to these addresses; nor to loopback,\n"
             "                        169.254.0.0/16 and fe80::/10\n"
             "  --backend NAME        nft, iptables-nft or iptables-legacy; auto, the default,\n"
             "                        takes the first that works\n\n"
             "Exit codes: 0 done, 1 not verified, 2 usage, 71 the system refused, 77 a\n"
             "capability is missing.\n");
}

/* ---- Values ---- */

static int parse_number(const char *text, int64_t max, int64_t *out, struct strbuf *why)
{
    if (value_int(text, out, why) < 0)
        return -1;
    if (*out >= 0 && *out <= max)
        return 0;
    report_quote(why, text);
    strbuf_addf(why, " is not from 0 to %lld", (long long)max);
    return -1;
}

static int parse_id(const char *text, uint32_t *out, struct strbuf *why)
{
    int64_t n;
    if (parse_number(text, UINT32_MAX - 1, &n, why) < 0) /* the highest means "nobody" */
        return -1;
    *out = (uint32_t)n;
    return 0;
}

static int parse_port(const char *text, uint16_t *out, struct strbuf *why)
{
    struct port_range range;
    if (value_port_range(text, &range, why) < 0)
        return -1;
    *out = range.first;
    if (range.first == range.last)
        return 0;
    report_quote(why, text);
    strbuf_adds(why, " is a range, not one port");
    return -1;
}

static int parse_backend(const char *text, enum net_backend *out, struct strbuf *why)
{
    for (enum net_backend b = 0; b <= NET_BACKEND_COUNT; b++) {
        if (strcmp(text, net_backend_name(b)) == 0) {
            *out = b;
            return 0;
        }
    }
    report_quote(why, text);
    strbuf_adds(why, " is not auto, nft, iptables-nft or iptables-legacy");
    return -1;
}

static void add_ports(struct port_list *list, struct port_range range)
{
    list->items = xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = range;
}

static int add_port_item(const char *item, void *list, struct strbuf *why)
{
    struct port_range range;
    if (value_port_range(item, &range, why) < 0)
        return -1;
    add_ports(list, range);
    return 0;
}

static int add_network_item(const char *item, void *list, struct strbuf *why)
{
    struct cidr_list *nets = list;
    struct cidr net;
    if (value_cidr(item, &net, why) < 0)
        return -1;
    nets->items = xrealloc(nets->items, (nets->count + 1) * sizeof(*nets->items));
    nets->items[nets->count++] = net;
    return 0;
}

typedef int item_fn(const char *item, void *list, struct strbuf *why);

/* Adds the items of "a,b,c" to a list. */
static int parse_list(const char *text, item_fn *add, void *list, struct strbuf *why)
{
    char *copy = xstrdup(text), *rest = copy, *item;
    size_t count = 0;
    int err = 0;
    while (!err && (item = strsep(&rest, ",")) != NULL) {
        if (++count <= NET_LIST_MAX) {
            err = add(item, list, why);
        } else {
            strbuf_addf(why, "more than %d entries", NET_LIST_MAX);
            err = -1;
        }
    }
    free(copy);
    return err;
}

/* ---- Flags ---- */

static const struct {
    const char *name;
    enum net_action action; /* 0: takes a value */
} flags[] = {
    { "--apply", NET_APPLY },
    { "--print", NET_PRINT },
    { "--remove", NET_REMOVE },
    { "--verify", NET_VERIFY },
    { "--help", NET_HELP },
    { "--uid", 0 },
    { "--gid", 0 },
    { "--port", 0 },
    { "--ports", 0 },
    { "--exclude-cidr", 0 },
    { "--exclude-ports", 0 },
    { "--backend", 0 },
};

static int set_value(struct net_options *o, const char *name, const char *value, struct strbuf *why)
{
    if (strcmp(name, "--uid") == 0) {
        o->uid_given = o->by_uid = true;
        return parse_id(value, &o->uid, why);
    }
    if (strcmp(name, "--gid") == 0) {
        o->gid_given = o->by_gid = true;
        return parse_id(value, &o->gid, why);
    }
    if (strcmp(name, "--port") == 0)
        return parse_port(value, &o->port, why);
    if (strcmp(name, "--ports") == 0)
        return parse_list(value, add_port_item, &o->ports, why);
    if (strcmp(name, "--exclude-ports") == 0)
        return parse_list(value, add_port_item, &o->kept, why);
    if (strcmp(name, "--exclude-cidr") == 0)
        return parse_list(value, add_network_item, &o->excluded, why);
    return parse_backend(value, &o->backend, why);
}

static int refuse_flag(const char *arg, struct strbuf *why)
{
    struct suggestion s;
    char *name = xstrndup(arg, strcspn(arg, "="));
    suggest_start(&s, name);
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        suggest_offer(&s, flags[i].name);
    report_quote(why, name);
    strbuf_adds(why, " is not a flag of init-net");
    if (s.best)
        strbuf_addf(why, "; did you mean %s", s.best);
    free(name);
    return -1;
}

/* One flag at argv[*at], and its value if that stands behind it. */
static int parse_flag(int argc, char **argv, int *at, struct net_options *o, struct strbuf *why)
{
    const char *arg = argv[*at], *value = strchr(arg, '=');
    size_t len = value ? (size_t)(value - arg) : strlen(arg), i;
    for (i = 0; i < ARRAY_LEN(flags); i++)
        if (strlen(flags[i].name) == len && strncmp(flags[i].name, arg, len) == 0)
            break;
    if (i == ARRAY_LEN(flags))
        return refuse_flag(arg, why);
    if (flags[i].action) {
        o->actions |= flags[i].action;
        if (value)
            strbuf_addf(why, "%s takes no value", flags[i].name);
        return value ? -1 : 0;
    }
    if (!value && *at + 1 == argc) {
        strbuf_addf(why, "%s needs a value", flags[i].name);
        return -1;
    }
    value = value ? value + 1 : argv[++*at];
    strbuf_addf(why, "%s: ", flags[i].name);
    if (set_value(o, flags[i].name, value, why) < 0)
        return -1;
    strbuf_clear(why);
    return 0;
}

/* ---- What follows from them ---- */

static int by_first(const void *a, const void *b)
{
    const struct port_range *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

/* Sorted; those that overlap or touch become one. */
static void merge_ports(struct port_list *list)
{
    size_t kept = 0;
    qsort(list->items, list->count, sizeof(*list->items), by_first);
    for (size_t i = 1; i < list->count; i++) {
        struct port_range *last = &list->items[kept];
        if (list->items[i].first > last->last + 1)
            list->items[++kept] = list->items[i];
        else if (list->items[i].last > last->last)
            last->last = list->items[i].last;
    }
    list->count = kept + 1;
}

uint16_t net_options_first_port(const struct net_options *o)
{
    for (size_t i = 0; i < o->ports.count; i++) {
        unsigned port = o->ports.items[i].first; /* may pass 65535 */
        for (size_t k = 0; k < o->kept.count; k++)
            if (o->kept.items[k].first <= port && port <= o->kept.items[k].last)
                port = o->kept.items[k].last + 1u;
        if (port <= o->ports.items[i].last)
            return (uint16_t)port;
    }
    return 0;
}

static int check_actions(unsigned actions, struct strbuf *why)
{
    if (actions & NET_HELP)
        return 0;
    switch (actions) {
    case NET_APPLY:
    case NET_PRINT:
    case NET_REMOVE:
    case NET_VERIFY:
    case NET_APPLY | NET_VERIFY:
        return 0;
    default:
        strbuf_adds(why, "one of --apply, --print, --remove and --verify is needed; only "
                         "--apply and --verify go together");
        return -1;
    }
}

static int complete(struct net_options *o, struct strbuf *why)
{
    static const struct port_range web[] = { { 80, 80 }, { 443, 443 } };
    static const struct port_range own = { 3128, 3128 }, private = { 3130, 3131 };
    bool chosen = o->ports.count > 0;
    for (size_t i = 0; i < ARRAY_LEN(web) && !chosen; i++)
        add_ports(&o->ports, web[i]);
    add_ports(&o->kept, own);
    add_ports(&o->kept, private);
    add_ports(&o->kept, (struct port_range){ o->port, o->port });
    merge_ports(&o->ports);
    merge_ports(&o->kept);
    o->by_uid = o->uid_given || !o->gid_given;
    if (check_actions(o->actions, why) < 0)
        return -1;
    if (net_options_first_port(o))
        return 0;
    strbuf_adds(why, "--ports: each of them is excluded or the proxy's own, nothing would be "
                     "captured");
    return -1;
}

int net_options_parse(int argc, char **argv, struct net_options *out, struct strbuf *why)
{
    *out = (struct net_options){ .backend = NET_BACKEND_COUNT,
                                 .uid = NET_DEFAULT_UID,
                                 .port = NET_DEFAULT_PORT };
    int err = 0;
    for (int i = 1; i < argc && !err; i++)
        err = parse_flag(argc, argv, &i, out, why);
    if (!err)
        err = complete(out, why);
    if (err)
        net_options_free(out);
    return err;
}

void net_options_free(struct net_options *o)
{
    free(o->ports.items);
    free(o->kept.items);
    free(o->excluded.items);
    *o = (struct net_options){ 0 };
}
