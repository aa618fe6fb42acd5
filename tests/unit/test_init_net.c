#include "base/base.h"
#include "base/strbuf.h"
#include "proxy/net_options.h"
#include "proxy/net_probe.h"
#include "proxy/net_rules.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARGS_MAX 8

/* "init-net" and up to seven words, parted by one space each. */
static int parse(const char *words, struct net_options *o, struct strbuf *why)
{
    char *copy = xstrdup(words), *rest = copy, *argv[ARGS_MAX + 1] = { NULL };
    char name[] = "init-net";
    int argc = 0;
    argv[argc++] = name;
    while (rest && argc < ARGS_MAX)
        argv[argc++] = strsep(&rest, " ");
    int err = net_options_parse(argc, argv, o, why);
    free(copy);
    return err;
}

static void must_parse(const char *words, struct net_options *o)
{
    struct strbuf why = STRBUF_INIT;
    if (parse(words, o, &why) < 0)
        fail_msg("%s: %s", words, strbuf_str(&why));
    strbuf_free(&why);
}

static void put_ports(const struct port_list *list, struct strbuf *out)
{
    for (size_t i = 0; i < list->count; i++)
        strbuf_addf(out, "%s%u-%u", i ? "," : "", list->items[i].first, list->items[i].last);
}

/* ---- Flags ---- */

static void what_is_not_a_number_or_a_network_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *words, *says; /* NULL: accepted */
    } cases[] = {
        { "--apply", NULL },
        { "--apply --verify", NULL },
        { "--verify --apply", NULL },
        { "--help", NULL },
        { "--apply --remove", "one of --apply" },
        { "--remove --verify", "one of --apply" },
        { "--print --apply", "one of --apply" },
        { "--uid 5", "one of --apply" },
        { "--verfy", "did you mean --verify" },
        { "--apply --excludeports 1", "did you mean --exclude-ports" },
        { "--apply x", "\"x\" is not a flag" },
        { "--apply=yes", "takes no value" },
        { "--apply --uid", "--uid needs a value" },
        { "--apply --uid 0", NULL },
        { "--apply --uid=4294967294", NULL },
        { "--apply --uid=4294967295", "is not from 0 to 4294967294" },
        { "--apply --uid -1", "--uid: \"-1\"" },
        { "--apply --uid 99999999999999999999", "--uid: " },
        { "--apply --uid 0x10", "--uid: " },
        { "--apply --uid 5;", "--uid: " },
        { "--apply --uid= ", "--uid: " },
        { "--apply --gid root", "--gid: \"root\"" },
        { "--apply --port 1", NULL },
        { "--apply --port 65535", NULL },
        { "--apply --port 0", "--port: " },
        { "--apply --port 65536", "--port: " },
        { "--apply --port 1-2", "is a range" },
        { "--apply --ports 80,443,8000-8099", NULL },
        { "--apply --ports 1-65535", NULL },
        { "--apply --ports 80,", "--ports: \"\"" },
        { "--apply --ports ,80", "--ports: \"\"" },
        { "--apply --ports 90-80", "ends before it begins" },
        { "--apply --ports 80:90", "--ports: " },
        { "--apply --ports 80}", "--ports: " },
        { "--apply --ports 3128-3131", "nothing would be captured" },
        { "--apply --ports 3127-3131", NULL },
        { "--apply --port 80 --ports 80", "nothing would be captured" },
        { "--apply --exclude-ports 80,443", "nothing would be captured" },
        { "--apply --exclude-ports 443", NULL },
        { "--apply --exclude-cidr 10.0.0.0/8,192.0.2.1,fd00::/8,::1", NULL },
        { "--apply --exclude-cidr 10.0.0.0/33", "prefix length" },
        { "--apply --exclude-cidr 10.0.0.1/8", "--exclude-cidr: " },
        { "--apply --exclude-cidr 10.0.0/8", "is not an address" },
        { "--apply --exclude-cidr 010.0.0.0/8", "is not an address" },
        { "--apply --exclude-cidr example.com", "is not an address" },
        { "--apply --exclude-cidr fe80::1%lo", "is not an address" },
        { "--apply --backend nft", NULL },
        { "--apply --backend auto", NULL },
        { "--apply --backend iptables", "is not auto, nft" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net_options o;
        struct strbuf why = STRBUF_INIT;
        int err = parse(cases[i].words, &o, &why);
        if (!cases[i].says != (err == 0))
            fail_msg("%s: %s", cases[i].words, err ? strbuf_str(&why) : "accepted");
        if (cases[i].says && !strstr(strbuf_str(&why), cases[i].says))
            fail_msg("%s: \"%s\" lacks \"%s\"", cases[i].words, strbuf_str(&why), cases[i].says);
        if (cases[i].says && strchr(strbuf_str(&why), '\n'))
            fail_msg("%s: more than one line", cases[i].words);
        net_options_free(&o);
        strbuf_free(&why);
    }
}

static void a_list_has_at_most_256_entries(void **state)
{
    (void)state;
    for (int n = NET_LIST_MAX; n <= NET_LIST_MAX + 1; n++) {
        struct strbuf words = STRBUF_INIT, why = STRBUF_INIT;
        struct net_options o;
        strbuf_adds(&words, "--apply --exclude-cidr 10.0.0.1");
        for (int i = 2; i <= n; i++)
            strbuf_addf(&words, ",10.%d.%d.1", i / 256, i % 256);
        int err = parse(strbuf_str(&words), &o, &why);
        if ((err == 0) != (n == NET_LIST_MAX))
            fail_msg("%d entries: %s", n, err ? strbuf_str(&why) : "accepted");
        net_options_free(&o);
        strbuf_free(&words);
        strbuf_free(&why);
    }
}

static void the_proxy_is_user_65532_unless_the_operator_says_otherwise(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        bool by_uid, by_gid;
        uint32_t uid, gid;
    } cases[] = {
        { "--apply", true, false, 65532, 0 },
        { "--apply --uid 7", true, false, 7, 0 },
        { "--apply --gid 8", false, true, 65532, 8 },
        { "--apply --gid 8 --uid 7", true, true, 7, 8 },
        { "--apply --gid 8 --uid 0", true, true, 0, 8 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net_options o;
        must_parse(cases[i].words, &o);
        if (o.by_uid != cases[i].by_uid || o.by_gid != cases[i].by_gid || o.uid != cases[i].uid ||
            o.gid != cases[i].gid)
            fail_msg("%s: uid %d %" PRIu32 ", gid %d %" PRIu32, cases[i].words, o.by_uid, o.uid,
                     o.by_gid, o.gid);
        net_options_free(&o);
    }
}

static void ports_are_sorted_and_merged(void **state)
{
    (void)state;
    static const struct {
        const char *words, *ports, *kept;
        uint16_t first;
    } cases[] = {
        { "--apply", "80-80,443-443", "3128-3131", 80 },
        { "--apply --ports 443,80,443", "80-80,443-443", "3128-3131", 80 },
        { "--apply --ports 90-99,80-90", "80-99", "3128-3131", 80 },
        { "--apply --ports 81,80", "80-81", "3128-3131", 80 },
        { "--apply --ports 82,80", "80-80,82-82", "3128-3131", 80 },
        { "--apply --ports 1-65535,80", "1-65535", "3128-3131", 1 },
        { "--apply --ports 65535,65534", "65534-65535", "3128-3131", 65534 },
        { "--apply --ports 80 --ports 90", "80-80,90-90", "3128-3131", 80 },
        { "--apply --port 4000", "80-80,443-443", "3128-3128,3130-3131,4000-4000", 80 },
        { "--apply --exclude-ports 80", "80-80,443-443", "80-80,3128-3131", 443 },
        { "--apply --ports 1-65535 --exclude-ports 1-3127", "1-65535", "1-3131", 3132 },
        { "--apply --ports 1-65535 --exclude-ports 1-65534", "1-65535", "1-65534", 65535 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net_options o;
        struct strbuf ports = STRBUF_INIT, kept = STRBUF_INIT;
        must_parse(cases[i].words, &o);
        put_ports(&o.ports, &ports);
        put_ports(&o.kept, &kept);
        if (strcmp(strbuf_str(&ports), cases[i].ports) != 0 ||
            strcmp(strbuf_str(&kept), cases[i].kept) != 0)
            fail_msg("%s: %s, kept %s", cases[i].words, strbuf_str(&ports), strbuf_str(&kept));
        if (net_options_first_port(&o) != cases[i].first)
            fail_msg("%s: first %u", cases[i].words, net_options_first_port(&o));
        net_options_free(&o);
        strbuf_free(&ports);
        strbuf_free(&kept);
    }
}

/* ---- Text ---- */

/* Takes the hash out of the comments: only that it differs matters. */
static void unhash(struct strbuf *sb)
{
    for (char *at = sb->data; at && (at = strstr(at, "\"tripswitch-proxy ")) != NULL; at += 18)
        if (strspn(at + 18, "0123456789abcdef") == 8)
            memset(at + 18, 'H', 8);
}

static void nft_gets_one_transaction_that_replaces_the_table(void **state)
{
    (void)state;
    static const char want[] =
        "table inet tripswitch_proxy\n"
        "delete table inet tripswitch_proxy\n"
        "table inet tripswitch_proxy {\n"
        "\tchain output {\n"
        "\t\ttype nat hook output priority -100; policy accept;\n"
        "\t\ttcp flags & (fin | syn | rst | ack) != syn return comment \"tripswitch-proxy "
        "HHHHHHHH 1/14\"\n"
        "\t\tmeta skuid 5 return comment \"tripswitch-proxy HHHHHHHH 2/14\"\n"
        "\t\tmeta skgid 6 return comment \"tripswitch-proxy HHHHHHHH 3/14\"\n"
        "\t\toifname \"lo\" return comment \"tripswitch-proxy HHHHHHHH 4/14\"\n"
        "\t\tip daddr 127.0.0.0/8 return comment \"tripswitch-proxy HHHHHHHH 5/14\"\n"
        "\t\tip6 daddr ::1/128 return comment \"tripswitch-proxy HHHHHHHH 6/14\"\n"
        "\t\tip daddr 169.254.0.0/16 return comment \"tripswitch-proxy HHHHHHHH 7/14\"\n"
        "\t\tip6 daddr fe80::/10 return comment \"tripswitch-proxy HHHHHHHH 8/14\"\n"
        "\t\tip daddr 10.0.0.0/8 return comment \"tripswitch-proxy HHHHHHHH 9/14\"\n"
        "\t\tip6 daddr fd00::/8 return comment \"tripswitch-proxy HHHHHHHH 10/14\"\n"
        "\t\ttcp dport 3128 return comment \"tripswitch-proxy HHHHHHHH 11/14\"\n"
        "\t\ttcp dport 3130-3131 return comment \"tripswitch-proxy HHHHHHHH 12/14\"\n"
        "\t\ttcp dport 4000 return comment \"tripswitch-proxy HHHHHHHH 13/14\"\n"
        "\t\ttcp dport 80-90 counter redirect to :4000 comment \"tripswitch-proxy HHHHHHHH "
        "14/14\"\n"
        "\t}\n"
        "}\n";
    struct net_options o;
    struct strbuf text = STRBUF_INIT;
    must_parse(
        "--apply --uid=5 --gid=6 --port=4000 --ports=80-90 --exclude-cidr 10.0.0.0/8,fd00::/8", &o);
    net_rules_nft(&o, &text);
    unhash(&text);
    assert_string_equal(strbuf_str(&text), want);
    net_options_free(&o);
    strbuf_free(&text);
}

static void iptables_gets_the_rules_of_one_version_of_ip(void **state)
{
    (void)state;
#define TAGGED(n, of) " -m comment --comment \"tripswitch-proxy HHHHHHHH " #n "/" #of "\" -j "
#define RULES(loopback, local, excluded)                                                           \
    "*nat\n"                                                                                       \
    ":TRIPSWITCH_PROXY - [0:0]\n"                                                                  \
    "-A TRIPSWITCH_PROXY -p tcp -m tcp ! --syn" TAGGED(                                            \
        1, 8) "RETURN\n"                                                                           \
              "-A TRIPSWITCH_PROXY -m owner --gid-owner 6" TAGGED(                                 \
                  2, 8) "RETURN\n"                                                                 \
                        "-A TRIPSWITCH_PROXY -o lo" TAGGED(                                        \
                            3, 8) "RETURN\n"                                                       \
                                  "-A TRIPSWITCH_PROXY -d " loopback TAGGED(                       \
                                      4,                                                           \
                                      8) "RETURN\n"                                                \
                                         "-A TRIPSWITCH_PROXY -d " local TAGGED(                   \
                                             5,                                                    \
                                             8) "RETURN\n"                                         \
                                                "-A TRIPSWITCH_PROXY -d " excluded TAGGED(         \
                                                    6,                                             \
                                                    8) "RETURN\n"                                  \
                                                       "-A TRIPSWITCH_PROXY -p tcp -m tcp "        \
                                                       "--dport 3128:3131" TAGGED(                 \
                                                           7,                                      \
                                                           8) "RETURN\n"                           \
                                                              "-A TRIPSWITCH_PROXY -p tcp -m tcp " \
                                                              "--dport 80" TAGGED(                 \
                                                                  8,                               \
                                                                  8) "REDIRECT --to-ports 3129\n"
    static const char v4[] = RULES("127.0.0.0/8", "169.254.0.0/16", "10.0.0.0/8");
    static const char v6[] = RULES("::1/128", "fe80::/10", "fd00::/8");
    static const struct {
        const char *what;
        struct net_saved before;
        bool v6;
        const char *want, *jump;
    } cases[] = {
        { "IPv4, no table",
          { .table = false },
          false,
          v4,
          "-A OUTPUT -p tcp -m comment --comment \"tripswitch-proxy made this table\" -j "
          "TRIPSWITCH_PROXY\n" },
        { "IPv4",
          { .table = true },
          false,
          v4,
          "-A OUTPUT -p tcp -m comment --comment \"tripswitch-proxy\" -j TRIPSWITCH_PROXY\n" },
        { "IPv6",
          { .table = true },
          true,
          v6,
          "-A OUTPUT -p tcp -m comment --comment \"tripswitch-proxy\" -j TRIPSWITCH_PROXY\n" },
        { "there already", { .table = true, .chain = true, .jumps = 1 }, false, v4, "" },
        { "chain without jump",
          { .table = true, .chain = true },
          false,
          v4,
          "-A OUTPUT -p tcp -m comment --comment \"tripswitch-proxy\" -j TRIPSWITCH_PROXY\n" },
    };
    struct net_options o;
    must_parse("--apply --gid 6 --ports 80 --exclude-cidr 10.0.0.0/8,fd00::/8", &o);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf got = STRBUF_INIT, want = STRBUF_INIT;
        net_rules_iptables(&o, cases[i].v6, &cases[i].before, &got);
        unhash(&got);
        strbuf_addf(&want, "%s%sCOMMIT\n", cases[i].want, cases[i].jump);
        if (strcmp(strbuf_str(&got), strbuf_str(&want)) != 0)
            fail_msg("%s: got\n%s\nwant\n%s", cases[i].what, strbuf_str(&got), strbuf_str(&want));
        strbuf_free(&got);
        strbuf_free(&want);
    }
    net_options_free(&o);
}

/* ---- Reading back ---- */

#define HEADS                                                                                      \
    "# Generated by iptables-save\n*nat\n:PREROUTING ACCEPT [1:2]\n:INPUT ACCEPT [0:0]\n"          \
    ":OUTPUT ACCEPT [3:4]\n:POSTROUTING ACCEPT [0:0]\n"
#define CHAIN ":TRIPSWITCH_PROXY - [0:0]\n"
#define JUMP  "-A OUTPUT -p tcp -m comment --comment tripswitch-proxy -j TRIPSWITCH_PROXY\n"
#define MADE                                                                                       \
    "-A OUTPUT -p tcp -m comment --comment \"tripswitch-proxy made this table\" -j "               \
    "TRIPSWITCH_PROXY\n"
#define OURS "-A TRIPSWITCH_PROXY -o lo -j RETURN\n"
#define END  "COMMIT\n# Completed\n"

static void iptables_save_tells_ours_from_theirs(void **state)
{
    (void)state;
    static const struct {
        const char *what, *text;
        bool table, chain, made, others;
        unsigned jumps;
        const char *undo;
    } cases[] = {
        { "nothing", "", false, false, false, false, 0, "" },
        { "another table", "*filter\n:INPUT DROP [0:0]\n-A INPUT -j DROP\nCOMMIT\n", false, false,
          false, false, 0, "" },
        { "an empty table", HEADS END, true, false, false, false, 0, "" },
        { "ours", HEADS CHAIN JUMP OURS END, true, true, false, false, 1,
          "-D OUTPUT -p tcp -m comment --comment tripswitch-proxy -j TRIPSWITCH_PROXY\n" },
        { "ours, in a table of ours", HEADS CHAIN MADE OURS END, true, true, true, false, 1,
          "-D OUTPUT -p tcp -m comment --comment \"tripswitch-proxy made this table\" -j "
          "TRIPSWITCH_PROXY\n" },
        { "a rule of others", HEADS CHAIN JUMP "-A POSTROUTING -j MASQUERADE\n" OURS END, true,
          true, false, true, 1,
          "-D OUTPUT -p tcp -m comment --comment tripswitch-proxy -j TRIPSWITCH_PROXY\n" },
        { "a chain of others", HEADS ":TRIPSWITCH_PROXY2 - [0:0]\n" END, true, false, false, true,
          0, "" },
        { "a jump to a chain of a longer name", HEADS CHAIN "-A OUTPUT -j TRIPSWITCH_PROXY2\n" END,
          true, true, false, true, 0, "" },
        { "a policy of others", "*nat\n:OUTPUT DROP [0:0]\nCOMMIT\n", true, false, false, true, 0,
          "" },
        { "a jump from elsewhere", HEADS CHAIN "-A MINE -j TRIPSWITCH_PROXY\n" END, true, true,
          false, false, 0, "-D MINE -j TRIPSWITCH_PROXY\n" },
        { "two jumps", HEADS CHAIN "-A OUTPUT -j TRIPSWITCH_PROXY\n" MADE END, true, true, true,
          false, 2,
          "-D OUTPUT -j TRIPSWITCH_PROXY\n"
          "-D OUTPUT -p tcp -m comment --comment \"tripswitch-proxy made this table\" -j "
          "TRIPSWITCH_PROXY\n" },
        { "a table that iptables cannot read", "# Table `nat' is incompatible, use 'nft' tool.\n",
          true, false, false, true, 0, "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net_saved s;
        net_saved_read(cases[i].text, &s);
        if (s.table != cases[i].table || s.chain != cases[i].chain || s.made != cases[i].made ||
            s.others != cases[i].others || s.jumps != cases[i].jumps)
            fail_msg("%s: table %d, chain %d, made %d, others %d, jumps %u", cases[i].what, s.table,
                     s.chain, s.made, s.others, s.jumps);
        if (strcmp(strbuf_str(&s.undo), cases[i].undo) != 0)
            fail_msg("%s: undo %s", cases[i].what, strbuf_str(&s.undo));
        net_saved_free(&s);
    }
}

static void removal_names_only_what_is_there(void **state)
{
    (void)state;
    static const struct {
        const char *what, *text, *want;
    } cases[] = {
        { "jump and chain", HEADS CHAIN "-A OUTPUT -j TRIPSWITCH_PROXY\n" END,
          "*nat\n-D OUTPUT -j TRIPSWITCH_PROXY\n-F TRIPSWITCH_PROXY\n-X "
          "TRIPSWITCH_PROXY\nCOMMIT\n" },
        { "chain", HEADS CHAIN END, "*nat\n-F TRIPSWITCH_PROXY\n-X TRIPSWITCH_PROXY\nCOMMIT\n" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net_saved s;
        struct strbuf got = STRBUF_INIT;
        net_saved_read(cases[i].text, &s);
        net_rules_iptables_remove(&s, &got);
        if (strcmp(strbuf_str(&got), cases[i].want) != 0)
            fail_msg("%s: %s", cases[i].what, strbuf_str(&got));
        net_saved_free(&s);
        strbuf_free(&got);
    }
}

enum edit { AS_IT_IS, DROP_LINE, ADD_LINE, SWAP_LINES, OTHER_HASH };

/* A copy of text with its line number n (from 0) edited. */
static char *edited(const char *text, enum edit edit, size_t n)
{
    struct strbuf out = STRBUF_INIT;
    char *copy = xstrdup(text), *rest = copy, *line, *held = NULL;
    for (size_t i = 0; (line = strsep(&rest, "\n")) != NULL && (rest || *line); i++) {
        if (i == n && edit == SWAP_LINES) {
            held = line;
            continue;
        }
        if (i == n && edit == DROP_LINE)
            continue;
        if (i == n && edit == ADD_LINE)
            strbuf_addf(&out, "%s\n",
                        *line == '-' ? "-A TRIPSWITCH_PROXY -j RETURN" : "\t\ttcp dport 80 return");
        char *hash = strstr(line, "\"tripswitch-proxy ");
        if (i == n && edit == OTHER_HASH && hash)
            hash[18] = hash[18] == '0' ? '1' : '0';
        strbuf_addf(&out, "%s\n", line);
        if (held)
            strbuf_addf(&out, "%s\n", held);
        held = NULL;
    }
    free(copy);
    return strbuf_take(&out);
}

static const struct edit_case {
    const char *what;
    enum edit edit;
    const char *says; /* NULL: in place */
} edits[] = {
    { "as it is", AS_IT_IS, NULL },
    { "a rule is missing", DROP_LINE, "not as we made them" },
    { "a rule too many", ADD_LINE, "not as we made them" },
    { "two rules swapped", SWAP_LINES, "not as we made them" },
    { "made with other flags", OTHER_HASH, "other flags" },
};

static void expect(const char *what, size_t line, int err, struct strbuf *why, const char *says)
{
    if (!says != (err == 0) || (says && !strstr(strbuf_str(why), says)))
        fail_msg("%s, line %zu: %s", what, line, err ? strbuf_str(why) : "in place");
    strbuf_clear(why);
}

static void every_missing_added_or_moved_rule_is_noticed(void **state)
{
    (void)state;
    struct net_options o;
    struct strbuf script = STRBUF_INIT, why = STRBUF_INIT;
    struct net_saved fresh = { .table = true };
    must_parse("--verify --exclude-cidr 10.0.0.0/8", &o);

    net_rules_nft(&o, &script);
    const char *listing = strstr(strbuf_str(&script), "table inet tripswitch_proxy {");
    for (size_t e = 0; e < ARRAY_LEN(edits); e++) {
        for (size_t line = 3; line < 3 + 10; line++) { /* of 11 rules; the last has no successor */
            char *text = edited(listing, edits[e].edit, line);
            expect(edits[e].what, line, net_rules_check_nft(&o, text, &why), &why, edits[e].says);
            free(text);
        }
    }
    for (int v6 = 0; v6 <= 1; v6++) {
        strbuf_clear(&script);
        net_rules_iptables(&o, v6, &fresh, &script);
        for (size_t e = 0; e < ARRAY_LEN(edits); e++) {
            for (size_t line = 2; line < 2 + (v6 ? 7 : 8); line++) { /* of 8 and 9 rules */
                char *text = edited(strbuf_str(&script), edits[e].edit, line);
                expect(edits[e].what, line, net_rules_check_iptables(&o, v6, text, &why), &why,
                       edits[e].says);
                free(text);
            }
        }
    }
    net_options_free(&o);
    strbuf_free(&script);
    strbuf_free(&why);
}

static void rules_that_nothing_leads_to_are_not_in_place(void **state)
{
    (void)state;
    struct net_options o;
    struct strbuf script = STRBUF_INIT, why = STRBUF_INIT;
    struct net_saved jump_there = { .table = true, .jumps = 1 };
    must_parse("--verify", &o);
    net_rules_nft(&o, &script);
    char *text = edited(strstr(strbuf_str(&script), "table inet tripswitch_proxy {"), DROP_LINE, 2);
    expect("nft without the hook", 2, net_rules_check_nft(&o, text, &why), &why,
           "not as we made them");
    free(text);
    strbuf_clear(&script);
    net_rules_iptables(&o, false, &jump_there, &script);
    expect("no jump", 0, net_rules_check_iptables(&o, false, strbuf_str(&script), &why), &why,
           "not as we made them");
    expect("nothing, nft", 0, net_rules_check_nft(&o, "", &why), &why, "no rules of ours");
    expect("nothing, iptables", 0, net_rules_check_iptables(&o, true, HEADS END, &why), &why,
           "no rules of ours");
    net_options_free(&o);
    strbuf_free(&script);
    strbuf_free(&why);
}

static void any_other_flag_makes_other_rules(void **state)
{
    (void)state;
    static const char *const others[] = {
        "--verify --uid 1",
        "--verify --gid 65532",
        "--verify --port 3139",
        "--verify --ports 80",
        "--verify --exclude-ports 81",
        "--verify --exclude-cidr 10.0.0.0/8",
        "--verify --exclude-cidr fd00::/8", /* even seen from IPv4 */
    };
    struct net_options o;
    struct strbuf why = STRBUF_INIT;
    must_parse("--verify", &o);
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        struct net_options other;
        struct net_saved fresh = { .table = true };
        struct strbuf script = STRBUF_INIT;
        must_parse(others[i], &other);
        net_rules_iptables(&other, false, &fresh, &script);
        expect(others[i], 0, net_rules_check_iptables(&o, false, strbuf_str(&script), &why), &why,
               "other flags");
        net_options_free(&other);
        strbuf_free(&script);
    }
    net_options_free(&o);
    strbuf_free(&why);
}

/* ---- /proc/net/tcp, as a little-endian machine writes it ---- */

#define TCP_HEAD                                                                                   \
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "  \
    "inode\n"
#define TCP_LINE(local, remote, state, uid)                                                        \
    "   0: " local " " remote " " state " 00000000:00000000 00:00000000 00000000 " uid             \
    "        0 4711 1 0000000000000000 100 0 0 10 0\n"
#define ANY6 "00000000000000000000000000000000"
#define ONE6 "00000000000000000000000001000000"
#define MAP4 "0000000000000000FFFF00000100007F" /* ::ffff:127.0.0.1 */

static void skip_on_big_endian(void)
{
    if (htonl(1) == 1)
        skip();
}

static void listeners_are_seen_where_redirected_connections_arrive(void **state)
{
    (void)state;
    skip_on_big_endian();
    static const struct {
        const char *what, *tcp, *tcp6;
        bool v4, v6;
        uint32_t uid;
    } cases[] = {
        { "nobody", TCP_HEAD, TCP_HEAD, false, false, 0 },
        { "no such files", NULL, NULL, false, false, 0 },
        { "127.0.0.1", TCP_HEAD TCP_LINE("0100007F:0C39", "00000000:0000", "0A", "65532"), "", true,
          false, 65532 },
        { "0.0.0.0", TCP_LINE("00000000:0C39", "00000000:0000", "0A", "1"), "", true, false, 1 },
        { "127.0.0.2", TCP_LINE("0200007F:0C39", "00000000:0000", "0A", "1"), "", false, false, 0 },
        { "10.0.0.1", TCP_LINE("0100000A:0C39", "00000000:0000", "0A", "1"), "", false, false, 0 },
        { "another port", TCP_LINE("0100007F:0C38", "00000000:0000", "0A", "1"), "", false, false,
          0 },
        { "a connection", TCP_LINE("0100007F:0C39", "0100007F:8000", "01", "1"), "", false, false,
          0 },
        { "::1", "", TCP_LINE(ONE6 ":0C39", ANY6 ":0000", "0A", "7"), false, true, 7 },
        { "::", "", TCP_LINE(ANY6 ":0C39", ANY6 ":0000", "0A", "4294967294"), true, true,
          4294967294 },
        { "::ffff:127.0.0.1", "", TCP_LINE(MAP4 ":0C39", ANY6 ":0000", "0A", "7"), true, false, 7 },
        { "both", TCP_LINE("0100007F:0C39", "00000000:0000", "0A", "7"),
          TCP_HEAD TCP_LINE(ONE6 ":0C39", ANY6 ":0000", "0A", "7"), true, true, 7 },
        { "cut off", "   0: 0100007F:0C39 00000000:0000 0A\n", "", false, false, 0 },
        { "an address of another length", TCP_LINE("0100007:0C39", "00000000:0000", "0A", "1"), "",
          false, false, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net_listeners l;
        net_listeners_read(cases[i].tcp, cases[i].tcp6, 3129, &l);
        if (l.v4 != cases[i].v4 || l.v6 != cases[i].v6 || l.uid != cases[i].uid)
            fail_msg("%s: v4 %d, v6 %d, uid %" PRIu32, cases[i].what, l.v4, l.v6, l.uid);
    }
}

static void the_other_end_of_a_captured_connection_is_found(void **state)
{
    (void)state;
    skip_on_big_endian();
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(0x8001) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(0x8001) };
    inet_pton(AF_INET, "10.0.0.5", &v4.sin_addr);
    inet_pton(AF_INET6, "fd00::5", &v6.sin6_addr);
#define PEER6 "000000FD000000000000000005000000"
#define MAP5  "0000000000000000FFFF00000500000A"
    const struct {
        const char *what, *tcp, *tcp6;
        const struct sockaddr *peer;
        bool want;
    } cases[] = {
        { "IPv4", TCP_LINE("0100007F:0C39", "0500000A:8001", "01", "1"), "", (struct sockaddr *)&v4,
          true },
        { "closing", TCP_LINE("0100007F:0C39", "0500000A:8001", "08", "1"), "",
          (struct sockaddr *)&v4, true },
        { "on an IPv6 socket", "", TCP_LINE(MAP4 ":0C39", MAP5 ":8001", "01", "1"),
          (struct sockaddr *)&v4, true },
        { "IPv6", "", TCP_LINE(ONE6 ":0C39", PEER6 ":8001", "01", "1"), (struct sockaddr *)&v6,
          true },
        { "our own end", TCP_LINE("0500000A:8001", "010200C0:0050", "01", "1"), "",
          (struct sockaddr *)&v4, false },
        { "another port of ours", TCP_LINE("0100007F:0C39", "0500000A:8002", "01", "1"), "",
          (struct sockaddr *)&v4, false },
        { "another address", TCP_LINE("0100007F:0C39", "0600000A:8001", "01", "1"), "",
          (struct sockaddr *)&v4, false },
        { "not the proxy's port", TCP_LINE("0100007F:0009", "0500000A:8001", "01", "1"), "",
          (struct sockaddr *)&v4, false },
        { "IPv4 is not IPv6", TCP_LINE("0100007F:0C39", "0500000A:8001", "01", "1"), "",
          (struct sockaddr *)&v6, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (net_peer_read(cases[i].tcp, cases[i].tcp6, 3129, cases[i].peer) != cases[i].want)
            fail_msg("%s: %s", cases[i].what, cases[i].want ? "not found" : "found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_a_number_or_a_network_is_refused),
        cmocka_unit_test(a_list_has_at_most_256_entries),
        cmocka_unit_test(the_proxy_is_user_65532_unless_the_operator_says_otherwise),
        cmocka_unit_test(ports_are_sorted_and_merged),
        cmocka_unit_test(nft_gets_one_transaction_that_replaces_the_table),
        cmocka_unit_test(iptables_gets_the_rules_of_one_version_of_ip),
        cmocka_unit_test(iptables_save_tells_ours_from_theirs),
        cmocka_unit_test(removal_names_only_what_is_there),
        cmocka_unit_test(every_missing_added_or_moved_rule_is_noticed),
        cmocka_unit_test(rules_that_nothing_leads_to_are_not_in_place),
        cmocka_unit_test(any_other_flag_makes_other_rules),
        cmocka_unit_test(listeners_are_seen_where_redirected_connections_arrive),
        cmocka_unit_test(the_other_end_of_a_captured_connection_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
