#include "proxy/net_backend.h"
#include "base/strbuf.h"
#include "proxy/net_rules.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- nft ---- */

static enum net_tool_end nft_script(const char *script, struct strbuf *why)
{
    static const char *const argv[] = { "nft", "-f", "-", NULL };
    return net_tool_run(argv, script, NULL, why);
}

/* listing stays empty if there is no table of ours. */
static enum net_tool_end nft_list(struct strbuf *listing, struct strbuf *why)
{
    static const char *const argv[] = { "nft", "list", "table", "inet", NET_TABLE, NULL };
    enum net_tool_end end = net_tool_run(argv, NULL, listing, why);
    if (end == NET_TOOL_FAILED && strstr(strbuf_str(why), "No such file or directory")) {
        strbuf_clear(listing);
        strbuf_clear(why);
        end = NET_TOOL_OK;
    }
    return end;
}

static enum net_tool_end nft_apply(const struct net_options *o, struct strbuf *why)
{
    struct strbuf script = STRBUF_INIT;
    net_rules_nft(o, &script);
    enum net_tool_end end = nft_script(strbuf_str(&script), why);
    strbuf_free(&script);
    return end;
}

static enum net_tool_end nft_remove(bool *removed, struct strbuf *why)
{
    struct strbuf text = STRBUF_INIT;
    enum net_tool_end end = nft_list(&text, why);
    if (end == NET_TOOL_OK && text.len) {
        strbuf_clear(&text);
        net_rules_nft_remove(&text);
        end = nft_script(strbuf_str(&text), why);
        *removed = end == NET_TOOL_OK;
    }
    strbuf_free(&text);
    return end;
}

/* ---- iptables ---- */

static const struct {
    const char *save, *restore;
} programs[NET_BACKEND_COUNT][2] = {
    [NET_IPTABLES_NFT] = { { "iptables-nft-save", "iptables-nft-restore" },
                           { "ip6tables-nft-save", "ip6tables-nft-restore" } },
    [NET_IPTABLES_LEGACY] = { { "iptables-legacy-save", "iptables-legacy-restore" },
                              { "ip6tables-legacy-save", "ip6tables-legacy-restore" } },
};

/* The kernel has no IPv6, or was told not to: then there is nothing to capture. */
static bool no_ipv6(void)
{
    return access("/proc/net/if_inet6", F_OK) < 0;
}

/* Asking the legacy program makes a table that stays; the list of tables knows without. */
static bool legacy_has_nat(bool v6)
{
    char line[64];
    bool found = false;
    FILE *f = fopen(v6 ? "/proc/net/ip6_tables_names" : "/proc/net/ip_tables_names", "re");
    while (f && !found && fgets(line, sizeof(line), f))
        found = strcmp(line, "nat\n") == 0;
    if (f)
        fclose(f);
    return found;
}

static enum net_tool_end saved_text(enum net_backend b, bool v6, struct strbuf *text,
                                    struct strbuf *why)
{
    const char *const argv[] = { programs[b][v6].save, NULL };
    if (b == NET_IPTABLES_LEGACY && !legacy_has_nat(v6))
        return net_tool_installed(argv[0]) ? NET_TOOL_OK : NET_TOOL_ABSENT;
    return net_tool_run(argv, NULL, text, why);
}

static enum net_tool_end saved_read(enum net_backend b, bool v6, struct net_saved *saved,
                                    struct strbuf *why)
{
    struct strbuf text = STRBUF_INIT;
    enum net_tool_end end = saved_text(b, v6, &text, why);
    net_saved_read(strbuf_str(&text), saved);
    /* A legacy table never goes away again, so none is ours alone. */
    saved->table = saved->table || b == NET_IPTABLES_LEGACY;
    strbuf_free(&text);
    return end;
}

static enum net_tool_end restore(enum net_backend b, bool v6, bool keep_others, const char *script,
                                 struct strbuf *why)
{
    const char *argv[] = { programs[b][v6].restore, "-w", "5", keep_others ? "--noflush" : NULL,
                           NULL };
    return net_tool_run(argv, script, NULL, why);
}

static enum net_tool_end iptables_apply_one(enum net_backend b, bool v6,
                                            const struct net_options *o, struct strbuf *why)
{
    struct net_saved before;
    struct strbuf script = STRBUF_INIT;
    enum net_tool_end end = saved_read(b, v6, &before, why);
    if (end == NET_TOOL_OK) {
        net_rules_iptables(o, v6, &before, &script);
        end = restore(b, v6, true, strbuf_str(&script), why);
    }
    net_saved_free(&before);
    strbuf_free(&script);
    return end;
}

/* A table that came into being with our rules goes with them, if it has nothing else. */
static enum net_tool_end drop_own_table(enum net_backend b, bool v6, struct strbuf *why)
{
    struct net_saved now;
    enum net_tool_end end = saved_read(b, v6, &now, why);
    if (end == NET_TOOL_OK && now.table && !now.others && !now.chain && !now.jumps)
        end = restore(b, v6, false, "*nat\nCOMMIT\n", why);
    net_saved_free(&now);
    return end;
}

static enum net_tool_end iptables_remove_one(enum net_backend b, bool v6, bool *removed,
                                             struct strbuf *why)
{
    struct net_saved before;
    enum net_tool_end end = saved_read(b, v6, &before, why);
    if (end == NET_TOOL_OK && (before.chain || before.undo.len)) {
        struct strbuf script = STRBUF_INIT;
        net_rules_iptables_remove(&before, &script);
        end = restore(b, v6, true, strbuf_str(&script), why);
        strbuf_free(&script);
        *removed = *removed || end == NET_TOOL_OK;
        if (end == NET_TOOL_OK && before.made)
            end = drop_own_table(b, v6, why);
    }
    net_saved_free(&before);
    return end;
}

static enum net_tool_end iptables_remove(enum net_backend b, bool *removed, struct strbuf *why)
{
    enum net_tool_end end = iptables_remove_one(b, false, removed, why);
    if (end == NET_TOOL_OK && !no_ipv6())
        end = iptables_remove_one(b, true, removed, why);
    return end;
}

static enum net_tool_end iptables_apply(enum net_backend b, const struct net_options *o,
                                        struct strbuf *why)
{
    enum net_tool_end end = iptables_apply_one(b, false, o, why);
    if (end != NET_TOOL_OK || no_ipv6())
        return end;
    end = iptables_apply_one(b, true, o, why);
    if (end != NET_TOOL_OK) { /* all or nothing */
        bool removed = false;
        struct strbuf ignored = STRBUF_INIT;
        iptables_remove_one(b, false, &removed, &ignored);
        strbuf_free(&ignored);
    }
    return end;
}

/* ---- Are the rules in place? ---- */

static enum net_tool_end nft_check(const struct net_options *o, bool *found, bool *in_place,
                                   struct strbuf *why)
{
    struct strbuf text = STRBUF_INIT;
    enum net_tool_end end = nft_list(&text, why);
    *found = text.len > 0;
    *in_place = end == NET_TOOL_OK && net_rules_check_nft(o, strbuf_str(&text), why) == 0;
    strbuf_free(&text);
    return end;
}

static enum net_tool_end iptables_check(enum net_backend b, const struct net_options *o,
                                        bool *found, bool *in_place, struct strbuf *why)
{
    enum net_tool_end end = NET_TOOL_OK;
    *found = false;
    *in_place = true;
    for (int v6 = 0; v6 <= !no_ipv6() && end == NET_TOOL_OK && *in_place; v6++) {
        struct strbuf text = STRBUF_INIT;
        end = saved_text(b, v6, &text, why);
        *found = *found || strstr(strbuf_str(&text), ":" NET_CHAIN " ");
        *in_place =
            end == NET_TOOL_OK && net_rules_check_iptables(o, v6, strbuf_str(&text), why) == 0;
        strbuf_free(&text);
    }
    return end;
}

/* ---- Any of them ---- */

enum net_tool_end net_backend_apply(enum net_backend b, const struct net_options *o,
                                    struct strbuf *why)
{
    return b == NET_NFT ? nft_apply(o, why) : iptables_apply(b, o, why);
}

enum net_tool_end net_backend_remove(enum net_backend b, bool *removed, struct strbuf *why)
{
    *removed = false;
    return b == NET_NFT ? nft_remove(removed, why) : iptables_remove(b, removed, why);
}

enum net_tool_end net_backend_check(enum net_backend b, const struct net_options *o, bool *found,
                                    bool *in_place, struct strbuf *why)
{
    return b == NET_NFT ? nft_check(o, found, in_place, why)
                        : iptables_check(b, o, found, in_place, why);
}
