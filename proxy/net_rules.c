#include "proxy/net_rules.h"
#include "base/base.h"
#include "config/value.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TAG       "tripswitch-proxy"
#define MADE_TAG  TAG " made this table"
#define JUMP      " -j " NET_CHAIN
#define V4_PREFIX 96 /* bits of ::ffff:0:0/96, where struct cidr keeps IPv4 */

/*
 * The rules, in order.  KEEP_STANDING: where nothing tracked connections before, the first
 * packet that the kernel sees of an old one looks like a new connection; redirected, the
 * connection would be reset.  Only a SYN begins one.
 */
enum rule_kind {
    KEEP_STANDING,
    KEEP_USER,
    KEEP_GROUP,
    KEEP_LOOPBACK,
    KEEP_NETWORK,
    KEEP_PORTS,
    CAPTURE
};

struct rule {
    enum rule_kind kind;
    uint32_t id;             /* KEEP_USER, KEEP_GROUP */
    struct cidr net;         /* KEEP_NETWORK */
    struct port_range ports; /* KEEP_PORTS, CAPTURE */
    uint16_t to;             /* CAPTURE */
};

struct rules {
    struct rule *items; /* owned */
    size_t count;
    uint32_t hash; /* of all rules, those of the other version of IP too */
};

static const struct cidr always_kept[] = {
    { .addr = { [10] = 0xff, [11] = 0xff, [12] = 127 }, .bits = V4_PREFIX + 8 }, /* 127.0.0.0/8 */
    { .addr = { [15] = 1 }, .bits = 128 },                                       /* ::1 */
    { .addr = { [10] = 0xff, [11] = 0xff, [12] = 169, [13] = 254 },
      .bits = V4_PREFIX + 16 },             /* 169.254.0.0/16: metadata services */
    { .addr = { 0xfe, 0x80 }, .bits = 10 }, /* fe80::/10 */
};

static bool is_v6(const struct cidr *net)
{
    return net->bits < V4_PREFIX || memcmp(net->addr, always_kept[0].addr, V4_PREFIX / 8) != 0;
}

static void add(struct rules *rs, struct rule rule)
{
    rs->items = xrealloc(rs->items, (rs->count + 1) * sizeof(*rs->items));
    rs->items[rs->count++] = rule;
}

static void add_network(struct rules *rs, const struct cidr *net)
{
    add(rs, (struct rule){ .kind = KEEP_NETWORK, .net = *net });
}

static void add_ports(struct rules *rs, enum rule_kind kind, const struct port_list *list,
                      uint16_t to)
{
    for (size_t i = 0; i < list->count; i++)
        add(rs, (struct rule){ .kind = kind, .ports = list->items[i], .to = to });
}

static void nft_body(const struct rule *r, struct strbuf *out);

/* FNV-1a: tells sets of flags apart, no more. */
static uint32_t hash_of(const struct rules *rs)
{
    struct strbuf text = STRBUF_INIT;
    for (size_t i = 0; i < rs->count; i++)
        nft_body(&rs->items[i], &text);
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ (uint8_t)text.data[i]) * 16777619u;
    strbuf_free(&text);
    return hash;
}

static void rules_make(const struct net_options *o, struct rules *rs)
{
    *rs = (struct rules){ 0 };
    add(rs, (struct rule){ .kind = KEEP_STANDING });
    if (o->by_uid)
        add(rs, (struct rule){ .kind = KEEP_USER, .id = o->uid });
    if (o->by_gid)
        add(rs, (struct rule){ .kind = KEEP_GROUP, .id = o->gid });
    add(rs, (struct rule){ .kind = KEEP_LOOPBACK });
    for (size_t i = 0; i < ARRAY_LEN(always_kept); i++)
        add_network(rs, &always_kept[i]);
    for (size_t i = 0; i < o->excluded.count; i++)
        add_network(rs, &o->excluded.items[i]);
    add_ports(rs, KEEP_PORTS, &o->kept, 0);
    add_ports(rs, CAPTURE, &o->ports, o->port);
    rs->hash = hash_of(rs);
}

/* Leaves the rules of one version of IP, as iptables wants them. */
static void rules_filter(struct rules *rs, bool v6)
{
    size_t left = 0;
    for (size_t i = 0; i < rs->count; i++)
        if (rs->items[i].kind != KEEP_NETWORK || is_v6(&rs->items[i].net) == v6)
            rs->items[left++] = rs->items[i];
    rs->count = left;
}

/* The comment of rule i (from 0), in quotes. */
static void put_tag(const struct rules *rs, size_t i, struct strbuf *out)
{
    strbuf_addf(out, "\"" TAG " %08" PRIx32 " %zu/%zu\"", rs->hash, i + 1, rs->count);
}

static void put_ports(const struct port_range *p, const char *dash, struct strbuf *out)
{
    strbuf_addu(out, p->first);
    if (p->last != p->first)
        strbuf_addf(out, "%s%u", dash, p->last);
}

/* ---- nft ---- */

static void nft_body(const struct rule *r, struct strbuf *out)
{
    switch (r->kind) {
    case KEEP_STANDING:
        strbuf_adds(out, "tcp flags & (fin | syn | rst | ack) != syn return");
        break;
    case KEEP_USER:
        strbuf_addf(out, "meta skuid %" PRIu32 " return", r->id);
        break;
    case KEEP_GROUP:
        strbuf_addf(out, "meta skgid %" PRIu32 " return", r->id);
        break;
    case KEEP_LOOPBACK:
        strbuf_adds(out, "oifname \"lo\" return");
        break;
    case KEEP_NETWORK:
        strbuf_adds(out, is_v6(&r->net) ? "ip6 daddr " : "ip daddr ");
        value_format_cidr(out, &r->net);
        strbuf_adds(out, " return");
        break;
    case KEEP_PORTS:
        strbuf_adds(out, "tcp dport ");
        put_ports(&r->ports, "-", out);
        strbuf_adds(out, " return");
        break;
    case CAPTURE:
        strbuf_adds(out, "tcp dport ");
        put_ports(&r->ports, "-", out);
        strbuf_addf(out, " counter redirect to :%u", r->to);
        break;
    }
}

void net_rules_nft_remove(struct strbuf *out)
{
    /* Naming it first makes it, so that deleting cannot fail. */
    strbuf_adds(out, "table inet " NET_TABLE "\ndelete table inet " NET_TABLE "\n");
}

void net_rules_nft(const struct net_options *o, struct strbuf *out)
{
    struct rules rs;
    rules_make(o, &rs);
    net_rules_nft_remove(out);
    strbuf_adds(out, "table inet " NET_TABLE " {\n\tchain output {\n"
                     "\t\ttype nat hook output priority -100; policy accept;\n");
    for (size_t i = 0; i < rs.count; i++) {
        strbuf_adds(out, "\t\t");
        nft_body(&rs.items[i], out);
        strbuf_adds(out, " comment ");
        put_tag(&rs, i, out);
        strbuf_addc(out, '\n');
    }
    strbuf_adds(out, "\t}\n}\n");
    free(rs.items);
}

/* ---- iptables ---- */

static void iptables_body(const struct rule *r, struct strbuf *out)
{
    switch (r->kind) {
    case KEEP_STANDING:
        strbuf_adds(out, " -p tcp -m tcp ! --syn");
        break;
    case KEEP_USER:
        strbuf_addf(out, " -m owner --uid-owner %" PRIu32, r->id);
        break;
    case KEEP_GROUP:
        strbuf_addf(out, " -m owner --gid-owner %" PRIu32, r->id);
        break;
    case KEEP_LOOPBACK:
        strbuf_adds(out, " -o lo");
        break;
    case KEEP_NETWORK:
        strbuf_adds(out, " -d ");
        value_format_cidr(out, &r->net);
        break;
    case KEEP_PORTS:
    case CAPTURE:
        strbuf_adds(out, " -p tcp -m tcp --dport ");
        put_ports(&r->ports, ":", out);
        break;
    }
}

void net_rules_iptables(const struct net_options *o, bool v6, const struct net_saved *before,
                        struct strbuf *out)
{
    struct rules rs;
    rules_make(o, &rs);
    rules_filter(&rs, v6);
    /* With --noflush this line makes the chain, or empties it. */
    strbuf_adds(out, "*nat\n:" NET_CHAIN " - [0:0]\n");
    for (size_t i = 0; i < rs.count; i++) {
        strbuf_adds(out, "-A " NET_CHAIN);
        iptables_body(&rs.items[i], out);
        strbuf_adds(out, " -m comment --comment ");
        put_tag(&rs, i, out);
        if (rs.items[i].kind == CAPTURE)
            strbuf_addf(out, " -j REDIRECT --to-ports %u\n", rs.items[i].to);
        else
            strbuf_adds(out, " -j RETURN\n");
    }
    if (!before->jumps)
        strbuf_addf(out, "-A OUTPUT -p tcp -m comment --comment \"%s\"" JUMP "\n",
                    before->table ? TAG : MADE_TAG);
    strbuf_adds(out, "COMMIT\n");
    free(rs.items);
}

void net_rules_iptables_remove(const struct net_saved *before, struct strbuf *out)
{
    strbuf_adds(out, "*nat\n");
    strbuf_adds(out, strbuf_str(&before->undo));
    if (before->chain)
        strbuf_adds(out, "-F " NET_CHAIN "\n-X " NET_CHAIN "\n");
    strbuf_adds(out, "COMMIT\n");
}

/* ---- Reading back ---- */

static bool starts(const char *line, const char *with)
{
    return strncmp(line, with, strlen(with)) == 0;
}

static bool ends(const char *line, const char *with)
{
    size_t len = strlen(line), tail = strlen(with);
    return len >= tail && strcmp(line + len - tail, with) == 0;
}

static bool is_own_chain(const char *name)
{
    return starts(name, NET_CHAIN) && (name[strlen(NET_CHAIN)] == ' ' || !name[strlen(NET_CHAIN)]);
}

static void read_chain(const char *name, struct net_saved *out)
{
    static const char *const builtin[] = { "PREROUTING ACCEPT", "INPUT ACCEPT", "OUTPUT ACCEPT",
                                           "POSTROUTING ACCEPT" };
    if (is_own_chain(name)) {
        out->chain = true;
        return;
    }
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(builtin); i++)
        known = known || starts(name, builtin[i]);
    out->others = out->others || !known;
}

static void read_rule(const char *chain, struct net_saved *out)
{
    if (is_own_chain(chain))
        return;
    if (!ends(chain, JUMP)) {
        out->others = true;
        return;
    }
    strbuf_addf(&out->undo, "-D %s\n", chain);
    if (!starts(chain, "OUTPUT "))
        return;
    out->jumps++;
    out->made = out->made || strstr(chain, "\"" MADE_TAG "\"");
}

void net_saved_read(const char *text, struct net_saved *out)
{
    *out = (struct net_saved){ 0 };
    char *copy = xstrdup(text), *rest = copy, *line;
    bool inside = false;
    while ((line = strsep(&rest, "\n")) != NULL) {
        if (*line == '*')
            inside = strcmp(line, "*nat") == 0;
        out->table = out->table || inside;
        if (starts(line, "# Table ")) /* "... `nat' is incompatible, use 'nft' tool." */
            out->table = out->others = true;
        else if (inside && *line == ':')
            read_chain(line + 1, out);
        else if (inside && starts(line, "-A "))
            read_rule(line + 3, out);
    }
    free(copy);
}

void net_saved_free(struct net_saved *s)
{
    strbuf_free(&s->undo);
}

struct comparison {
    struct rules want;
    size_t seen;
    bool altered; /* a rule that is not ours, or out of its place */
    bool other;   /* a rule of ours with other flags */
};

static void compare(struct comparison *c, const char *line)
{
    struct strbuf tag = STRBUF_INIT, ours = STRBUF_INIT;
    put_tag(&c->want, c->seen, &tag);
    strbuf_addf(&ours, "\"" TAG " %08" PRIx32 " ", c->want.hash);
    if (strstr(line, strbuf_str(&tag)))
        c->seen++;
    else if (strstr(line, "\"" TAG " ") && !strstr(line, strbuf_str(&ours)))
        c->other = true;
    else
        c->altered = true;
    strbuf_free(&tag);
    strbuf_free(&ours);
}

static int conclude(struct comparison *c, const char *where, bool hooked, struct strbuf *why)
{
    bool absent = !c->seen && !c->other && !c->altered && !hooked;
    bool good = c->seen == c->want.count && !c->other && !c->altered && hooked;
    free(c->want.items);
    if (good)
        return 0;
    if (absent)
        strbuf_addf(why, "no rules of ours are in place (%s)", where);
    else if (c->other)
        strbuf_addf(why, "the rules in place were made with other flags or by another version (%s)",
                    where);
    else
        strbuf_addf(why, "the rules in place are not as we made them (%s)", where);
    return -1;
}

int net_rules_check_nft(const struct net_options *o, const char *listing, struct strbuf *why)
{
    struct comparison c = { 0 };
    rules_make(o, &c.want);
    bool hooked = false;
    char *copy = xstrdup(listing), *rest = copy, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        line += strspn(line, " \t");
        if (starts(line, "type nat hook output "))
            hooked = true;
        else if (*line && *line != '#' && *line != '}' && !starts(line, "table ") &&
                 strcmp(line, "chain output {") != 0)
            compare(&c, line);
    }
    free(copy);
    return conclude(&c, "nft", hooked, why);
}

int net_rules_check_iptables(const struct net_options *o, bool v6, const char *listing,
                             struct strbuf *why)
{
    struct comparison c = { 0 };
    struct net_saved saved;
    rules_make(o, &c.want);
    rules_filter(&c.want, v6);
    net_saved_read(listing, &saved);
    bool hooked = saved.jumps > 0;
    net_saved_free(&saved);
    char *copy = xstrdup(listing), *rest = copy, *line;
    while ((line = strsep(&rest, "\n")) != NULL)
        if (starts(line, "-A " NET_CHAIN " "))
            compare(&c, line);
    free(copy);
    return conclude(&c, v6 ? "IPv6" : "IPv4", hooked, why);
}

/* ---- For people ---- */

void net_rules_describe(const struct net_options *o, struct strbuf *out)
{
    strbuf_adds(out, "TCP ports ");
    for (size_t i = 0; i < o->ports.count; i++) {
        strbuf_adds(out, i ? "," : "");
        put_ports(&o->ports.items[i], "-", out);
    }
    strbuf_addf(out, " go to port %u, except what ", o->port);
    if (o->by_uid)
        strbuf_addf(out, "user %" PRIu32, o->uid);
    if (o->by_gid)
        strbuf_addf(out, "%sgroup %" PRIu32, o->by_uid ? " or " : "", o->gid);
    strbuf_adds(out, " opens");
}
