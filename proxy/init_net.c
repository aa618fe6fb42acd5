#include "proxy/init_net.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "proxy/net_backend.h"
#include "proxy/net_options.h"
#include "proxy/net_probe.h"
#include "proxy/net_rules.h"
#include "proxy/net_tool.h"
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    EXIT_UNVERIFIED = 1,
    EXIT_BAD_USAGE = 2,
    EXIT_REFUSED = 71,
    EXIT_CAPABILITY = 77,
};

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    struct strbuf line = STRBUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    strbuf_adds(&line, "init-net: ");
    strbuf_addv(&line, fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s\n", strbuf_str(&line));
    strbuf_free(&line);
}

static int exit_code(enum net_tool_end end)
{
    return end == NET_TOOL_DENIED ? EXIT_CAPABILITY : EXIT_REFUSED;
}

/* ---- Apply and remove ---- */

/* Rules of an earlier run with another backend would stay beside the new ones. */
static void remove_others(enum net_backend except)
{
    for (enum net_backend b = 0; b < NET_BACKEND_COUNT; b++) {
        struct strbuf why = STRBUF_INIT;
        bool removed = false;
        enum net_tool_end end = b == except ? NET_TOOL_OK : net_backend_remove(b, &removed, &why);
        if (removed)
            say("removed the rules of an earlier run made with %s", net_backend_name(b));
        else if (end == NET_TOOL_FAILED)
            say("cannot tell whether %s has rules of an earlier run: %s", net_backend_name(b),
                strbuf_str(&why));
        strbuf_free(&why);
    }
}

/* The rules must not capture what the proxy opens.  Its user is that of its listening socket;
 * of a socket's group nothing can be seen. */
static bool excludes_user(const struct net_options *o, const struct net_listeners *l)
{
    return o->by_uid && l->uid == o->uid;
}

static bool captures_proxy(const struct net_options *o, const struct net_listeners *l)
{
    return !o->by_gid && !excludes_user(o, l);
}

/* A user that was named is believed: the proxy may come back as that one. */
static bool may_apply(const struct net_options *o)
{
    struct net_listeners l;
    net_listeners_find(o->port, &l);
    if (!l.v4 && !l.v6) {
        say("nothing listens on port %u yet: until the proxy does, captured connections are "
            "refused",
            o->port);
    } else if (captures_proxy(o, &l) && !o->uid_given) {
        say("the proxy on port %u runs as user %" PRIu32 ", not %" PRIu32
            ", so the rules would capture the proxy itself: say --uid %" PRIu32 " or --gid N",
            o->port, l.uid, o->uid, l.uid);
        return false;
    } else if (captures_proxy(o, &l) && !(o->actions & NET_VERIFY)) {
        say("the socket on port %u belongs to user %" PRIu32 ", not to user %" PRIu32
            " that --uid excludes",
            o->port, l.uid, o->uid);
    }
    return true;
}

static int apply(const struct net_options *o)
{
    if (!may_apply(o))
        return EXIT_BAD_USAGE;
    bool chosen = o->backend != NET_BACKEND_COUNT;
    int code = EXIT_REFUSED;
    for (enum net_backend b = chosen ? o->backend : 0; b < NET_BACKEND_COUNT; b++) {
        struct strbuf text = STRBUF_INIT;
        enum net_tool_end end = net_backend_apply(b, o, &text);
        if (end == NET_TOOL_OK) {
            net_rules_describe(o, &text);
            remove_others(b);
            say("applied with %s: %s", net_backend_name(b), strbuf_str(&text));
        } else {
            say("%s cannot be used: %s", net_backend_name(b), strbuf_str(&text));
        }
        strbuf_free(&text);
        if (end == NET_TOOL_OK)
            return 0;
        if (end == NET_TOOL_DENIED)
            code = EXIT_CAPABILITY;
        if (chosen)
            break;
    }
    say("nothing was changed");
    return code;
}

static int remove_all(const struct net_options *o)
{
    int code = 0;
    bool any = false, installed = false;
    for (enum net_backend b = 0; b < NET_BACKEND_COUNT; b++) {
        if (o->backend != NET_BACKEND_COUNT && o->backend != b)
            continue;
        struct strbuf why = STRBUF_INIT;
        bool removed = false;
        enum net_tool_end end = net_backend_remove(b, &removed, &why);
        installed = installed || end != NET_TOOL_ABSENT;
        any = any || removed;
        if (removed)
            say("removed the rules made with %s", net_backend_name(b));
        if (end == NET_TOOL_FAILED || end == NET_TOOL_DENIED) {
            say("cannot remove with %s: %s", net_backend_name(b), strbuf_str(&why));
            code = code == EXIT_CAPABILITY ? code : exit_code(end);
        }
        strbuf_free(&why);
    }
    if (!installed) {
        say("cannot remove anything: neither nft nor iptables is installed");
        return EXIT_REFUSED;
    }
    if (!any && !code)
        say("there were no rules to remove");
    return code;
}

/* ---- Print ---- */

static void print_iptables(const struct net_options *o, struct strbuf *out)
{
    static const struct net_saved fresh = { .table = true };
    strbuf_adds(out, "# IPv4, for iptables-restore --noflush\n");
    net_rules_iptables(o, false, &fresh, out);
    strbuf_adds(out, "# IPv6, for ip6tables-restore --noflush\n");
    net_rules_iptables(o, true, &fresh, out);
}

static int print(const struct net_options *o)
{
    struct strbuf out = STRBUF_INIT;
    if (o->backend == NET_NFT || o->backend == NET_BACKEND_COUNT)
        net_rules_nft(o, &out);
    else
        print_iptables(o, &out);
    fputs(strbuf_str(&out), stdout);
    strbuf_free(&out);
    return fflush(stdout) == 0 ? 0 : EXIT_REFUSED;
}

/* ---- Verify ---- */

/* The first backend that has anything of ours must have all of it; failing that, a refusal
 * of the kernel is told before "nothing there". */
static int verify_rules(const struct net_options *o)
{
    int code = EXIT_UNVERIFIED;
    bool found = false;
    struct strbuf problem = STRBUF_INIT;
    strbuf_adds(&problem, "no rules of ours are in place");
    for (enum net_backend b = 0; b < NET_BACKEND_COUNT && !found; b++) {
        if (o->backend != NET_BACKEND_COUNT && o->backend != b)
            continue;
        struct strbuf why = STRBUF_INIT;
        bool in_place = false;
        enum net_tool_end end = net_backend_check(b, o, &found, &in_place, &why);
        if (found || end == NET_TOOL_DENIED) {
            code = end != NET_TOOL_OK ? exit_code(end) : in_place ? 0 : EXIT_UNVERIFIED;
            strbuf_clear(&problem);
            strbuf_adds(&problem, strbuf_str(&why));
        }
        strbuf_free(&why);
    }
    if (code)
        say("not verified: %s", strbuf_str(&problem));
    strbuf_free(&problem);
    return code;
}

static bool excludes_ourselves(const struct net_options *o)
{
    return (o->by_uid && o->uid == geteuid()) || (o->by_gid && o->gid == getegid());
}

/* Appends what was found to done; 0, or EXIT_UNVERIFIED after saying why. */
static int verify_capture(const struct net_options *o, bool v6, bool listens, struct strbuf *done)
{
    const char *ip = v6 ? "IPv6" : "IPv4";
    struct strbuf why = STRBUF_INIT;
    enum net_capture got = net_probe(v6, net_options_first_port(o), o->port, &o->excluded, &why);
    if (got == NET_CAPTURED)
        strbuf_addf(done, ", an %s connection is captured", ip);
    else if (got == NET_UNTESTED)
        strbuf_addf(done, ", %s not tested (%s)", ip, strbuf_str(&why));
    else
        say("not verified: an %s %s%s", ip, strbuf_str(&why),
            listens ? ""
            : v6    ? "; the proxy does not listen on [::1], where captured connections arrive"
                 : "; the proxy does not listen on 127.0.0.1, where captured connections arrive");
    strbuf_free(&why);
    return got == NET_NOT_CAPTURED ? EXIT_UNVERIFIED : 0;
}

static int verify(const struct net_options *o)
{
    int code = verify_rules(o);
    if (code)
        return code;
    struct strbuf done = STRBUF_INIT;
    struct net_listeners l;
    net_listeners_find(o->port, &l);
    if (!l.v4 && !l.v6) {
        say("not verified: the rules are in place, but nothing listens on port %u: captured "
            "connections are refused until the proxy does (transparent_listen)",
            o->port);
        code = EXIT_UNVERIFIED;
    } else if (captures_proxy(o, &l)) {
        say("not verified: the proxy on port %u runs as user %" PRIu32
            ", and the rules, which exclude user %" PRIu32
            ", capture the proxy itself: apply them with --uid %" PRIu32 " or --gid N",
            o->port, l.uid, o->uid, l.uid);
        code = EXIT_UNVERIFIED;
    } else if (excludes_ourselves(o)) {
        strbuf_adds(&done, ", capture not tested (this process is itself excluded)");
    } else if (verify_capture(o, false, l.v4, &done) || verify_capture(o, true, l.v6, &done)) {
        code = EXIT_UNVERIFIED;
    }
    if (o->by_gid && !excludes_user(o, &l))
        strbuf_adds(&done, ", the proxy's group not tested");
    if (!code)
        say("verified: the rules are in place%s", strbuf_str(&done));
    strbuf_free(&done);
    return code;
}

/* ---- The command ---- */

static bool has_capability(unsigned cap)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };
    return syscall(SYS_capget, &header, data) == 0 &&
           (data[CAP_TO_INDEX(cap)].effective & CAP_TO_MASK(cap));
}

static int act(const struct net_options *o)
{
    int code = 0;
    if (o->actions & NET_PRINT)
        return print(o);
    if (!has_capability(CAP_NET_ADMIN)) {
        say("the capability NET_ADMIN is missing: run as root, or add it to the container "
            "(NET_RAW too, for iptables)");
        return EXIT_CAPABILITY;
    }
    if (o->actions & NET_REMOVE)
        return remove_all(o);
    if (o->actions & NET_APPLY)
        code = apply(o);
    if (!code && (o->actions & NET_VERIFY))
        code = verify(o);
    return code;
}

int init_net_main(int argc, char **argv)
{
    struct net_options o;
    struct strbuf text = STRBUF_INIT;
    int code = EXIT_BAD_USAGE;
    signal(SIGPIPE, SIG_IGN);
    if (net_options_parse(argc, argv, &o, &text) < 0) {
        say("%s; try init-net --help", strbuf_str(&text));
    } else if (o.actions & NET_HELP) {
        net_options_usage(&text);
        fputs(strbuf_str(&text), stdout);
        code = 0;
    } else {
        code = act(&o);
    }
    net_options_free(&o);
    strbuf_free(&text);
    return code;
}
