#include "tests/unit/test_config.h"
#include <fcntl.h>
#include <sys/stat.h>

#define KEY    "TRIPSWITCH_API_KEY=eb_pk_0123"
#define SECRET "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF"

/* -- layers -------------------------------------------------------------------------- */

static void nothing_said_gives_the_defaults(void **state)
{
    (void)state;
    struct outcome_of_load r = load_all(NULL, 0, NULL, NULL);
    const struct config *c = r.cfg;

    expect_errors("defaults", &r, NULL);
    expect_warnings("defaults", &r, "");
    assert_int_equal(c->listen.count, 2);
    assert_string_equal(c->listen.items[0].text, "127.0.0.1:3128");
    assert_string_equal(c->listen.items[1].text, "[::1]:3128");
    assert_int_equal(c->transparent_listen.count, 0);
    assert_string_equal(c->telemetry_listen.items[0].text, "127.0.0.1:3130");
    assert_string_equal(c->admin_listen.items[0].text, "127.0.0.1:3131");
    assert_int_equal(c->workers, 0);
    assert_int_equal(c->mode, MODE_ENFORCE);
    assert_int_equal(c->fail_mode, FAIL_OPEN);
    assert_null(c->via);
    assert_string_equal(c->upgrades.items[0], "websocket");
    assert_true(c->control.embedded);
    assert_null(c->control.url);
    assert_int_equal(c->control.state_source, SOURCE_AUTO);
    assert_int_equal(c->control.startup_sync_timeout_ms, 5000);
    assert_false(c->control.require_sync);
    assert_int_equal(c->control.state_max_age_ms, 60000);
    assert_int_equal(c->samples.batch, 500);
    assert_int_equal(c->samples.buffer, 10000);
    assert_int_equal(c->samples.max_age_ms, 120000);
    assert_string_equal(c->samples.trace_header, "traceparent");
    assert_int_equal(c->timeouts.connect_ms, 10000);
    assert_int_equal(c->timeouts.tls_ms, 10000);
    assert_int_equal(c->timeouts.first_byte_ms, OFF);
    assert_int_equal(c->timeouts.idle_ms, OFF);
    assert_int_equal(c->timeouts.total_ms, OFF);
    assert_int_equal(c->timeouts.client_header_ms, 10000);
    assert_int_equal(c->timeouts.client_idle_ms, 3600000);
    assert_int_equal(c->timeouts.upstream_idle_ms, 4000);
    assert_int_equal(c->timeouts.tunnel_idle_ms, OFF);
    assert_int_equal(c->timeouts.keepalive_ms, 60000);
    assert_int_equal(c->limits.connections, 4096);
    assert_int_equal(c->limits.connections_per_client, OFF);
    assert_int_equal(c->limits.tunnels, 4096);
    assert_int_equal(c->limits.header_bytes, 65536);
    assert_int_equal(c->limits.header_fields, 128);
    assert_int_equal(c->limits.buffer, 65536);
    assert_int_equal(c->limits.buffered_total, 33554432);
    assert_int_equal(c->limits.upstream_idle, 256);
    assert_int_equal(c->limits.dns_queue, 1000);
    assert_int_equal(c->limits.auto_breakers, 1000);
    assert_int_equal(c->dns.min_ttl_ms, 1000);
    assert_int_equal(c->dns.max_ttl_ms, 60000);
    assert_int_equal(c->dns.stale_ms, 60000);
    assert_int_equal(c->dns.timeout_ms, 5000);
    assert_int_equal(c->dns.servers.count, 0);
    assert_int_equal(c->access.deny_destinations.count, 2);
    assert_int_equal(c->drain.min_ms, 5000);
    assert_int_equal(c->drain.idle_ms, 1000);
    assert_int_equal(c->drain.max_ms, 25000);
    assert_int_equal(c->access_log.mode, ACCESS_ERRORS);
    assert_string_equal(c->access_log.path, "stdout");
    assert_string_equal(c->log_level, "info");
    assert_string_equal(c->log_format, "auto");
    assert_int_equal(c->bypass.count, 0);
    assert_int_equal(c->route_count, 0);
    assert_null(c->file);
    assert_int_equal(strlen(c->hash), 16);
    load_free(&r);
}

static void a_flag_beats_a_variable_and_a_variable_beats_the_file(void **state)
{
    (void)state;
    static const char json[] = "{\"drain\": {\"min\": \"1s\", \"max\": \"10s\"}}";
    static char *env[] = { "TRIPSWITCH_PROXY_DRAIN_MIN=2s", NULL };
    static char *flags[] = { "--drain-min", "3s", NULL };
    static const struct {
        char **flags;
        char **env;
        const char *json;
        int64_t min_ms, max_ms;
    } cases[] = {
        { NULL, NULL, NULL, 5000, 25000 },  { NULL, NULL, json, 1000, 10000 },
        { NULL, env, json, 2000, 10000 },   { flags, env, json, 3000, 10000 },
        { flags, NULL, NULL, 3000, 25000 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r =
            load_all(cases[i].json, sizeof(json) - 1, cases[i].flags, cases[i].env);
        expect_errors("layers", &r, NULL);
        assert_int_equal(r.cfg->drain.min_ms, cases[i].min_ms);
        assert_int_equal(r.cfg->drain.max_ms, cases[i].max_ms);
        load_free(&r);
    }
}

static void a_higher_layer_replaces_a_list_and_flags_of_one_list_add_up(void **state)
{
    (void)state;
    static const char json[] = "{\"bypass\": [\"file.example\", \"b.example\"]}";
    static char *env[] = { "TRIPSWITCH_PROXY_BYPASS=env.example , b.example", NULL };
    static char *flags[] = { "--bypass", "one.example,two.example", "--bypass=three.example",
                             NULL };
    static char *none[] = { "--bypass=", NULL };
    static const struct {
        char **flags;
        char **env;
        size_t count;
        const char *first;
    } cases[] = {
        { NULL, NULL, 2, "file.example" },
        { NULL, env, 2, "env.example" },
        { flags, env, 3, "one.example" },
        { none, env, 0, NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_all(json, sizeof(json) - 1, cases[i].flags, cases[i].env);
        expect_errors("lists", &r, NULL);
        assert_int_equal(r.cfg->bypass.count, cases[i].count);
        if (cases[i].count)
            assert_string_equal(r.cfg->bypass.items[0], cases[i].first);
        load_free(&r);
    }
}

static void every_layer_lists_its_errors_in_one_run(void **state)
{
    (void)state;
    static const char json[] = "{\"listne\": [],\n \"drain\": {\"min\": 5}}";
    static char *env[] = { "TRIPSWITCH_PROXY_DRAIN_MX=1s", "TRIPSWITCH_PROXY_WORKERS=many", NULL };
    static char *flags[] = { "--dran-min", "1s", "--limits-tunnels=-1", NULL };
    struct outcome_of_load r = load_all(json, sizeof(json) - 1, flags, env);

    expect_errors("all", &r,
                  "FILE:1:2: /listne: unknown key; did you mean \"listen\"?\n"
                  "FILE:2:19: /drain/min: 5 has no unit; write \"5ms\" or \"5s\"\n"
                  "TRIPSWITCH_PROXY_DRAIN_MX: unknown variable; did you mean "
                  "\"TRIPSWITCH_PROXY_DRAIN_MAX\"?\n"
                  "TRIPSWITCH_PROXY_WORKERS: \"many\" is not a whole number\n"
                  "--dran-min: unknown flag; did you mean \"--drain-min\"?\n"
                  "--limits-tunnels: -1 is below 0\n");
    load_free(&r);
}

/* -- flags --------------------------------------------------------------------------- */

static void flags_take_their_value_in_either_form(void **state)
{
    (void)state;
    static const struct {
        char *argv[4];
        bool require_sync;
        int64_t max_age_ms;
    } cases[] = {
        { { "--control-state-max-age", "7s" }, false, 7000 },
        { { "--control-state-max-age=7s" }, false, 7000 },
        { { "--control-state-max-age=off" }, false, OFF },
        { { "--control-state-max-age", "0s" }, false, 0 },
        { { "--control-require-sync" }, true, 60000 },
        { { "--control-require-sync", "true" }, true, 60000 },
        { { "--control-require-sync=1" }, true, 60000 },
        { { "--control-require-sync", "0" }, false, 60000 },
        { { "--control-require-sync=false" }, false, 60000 },
        { { "--control-require-sync", "--control-state-max-age=7s" }, true, 7000 },
        { { "--config", "x.json", "--control-require-sync" }, true, 60000 },
        { { "--config=x.json", "--control-require-sync" }, true, 60000 },
        { { "--control-state-max-age=1s", "--control-state-max-age=2s" }, false, 2000 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_flags((char **)cases[i].argv);
        expect_errors(cases[i].argv[0], &r, NULL);
        assert_int_equal(r.cfg->control.require_sync, cases[i].require_sync);
        assert_int_equal(r.cfg->control.state_max_age_ms, cases[i].max_age_ms);
        load_free(&r);
    }
}

static void wrong_flags_are_named(void **state)
{
    (void)state;
    static const struct {
        char *argv[4];
        const char *errors;
    } cases[] = {
        { { "--workers" }, "--workers: the value is missing\n" },
        { { "--workers", "--mode=off" }, "--workers: the value is missing\n" },
        { { "--workers=" }, "--workers: the value is empty\n" },
        { { "--config" }, "--config: the name of a file is missing\n" },
        { { "--confg", "x" }, "--confg: unknown flag; did you mean \"--config\"?\n" },
        { { "--require-sync" },
          "--require-sync: unknown flag; did you mean \"--control-require-sync\"?\n" },
        { { "--zzz", "value" }, "--zzz: unknown flag\n" },
        { { "--routes=[]" }, "--routes: this can be set in the file only\n" },
        { { "--global-tags=a" }, "--global-tags: this can be set in the file only\n" },
        { { "--embedded-state-file=x" },
          "--embedded-state-file: this can be set in the file only\n" },
        { { "stray" }, "stray: this is not a flag; flags begin with \"--\"\n" },
        { { "-x" }, "-x: this is not a flag; flags begin with \"--\"\n" },
        { { "--" }, "--: this is not a flag; flags begin with \"--\"\n" },
        { { "--mode=enforec" },
          "--mode: \"enforec\" is not one of enforce, shadow, off; did you mean \"enforce\"?\n" },
        { { "--upgrades=a,,b" },
          "--upgrades: \"\" is not a token: letters, digits and !#$%&'*+-.^_`|~\n" },
        { { "--control-require-sync=yes" },
          "--control-require-sync: \"yes\" is neither true nor false\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_flags((char **)cases[i].argv);
        expect_errors(cases[i].argv[0], &r, cases[i].errors);
        load_free(&r);
    }
}

static void the_file_is_named_by_flag_or_variable(void **state)
{
    (void)state;
    static char *env[] = { "PATH=/bin", "TRIPSWITCH_PROXY_CONFIG=env.json", NULL };
    static char *empty[] = { "TRIPSWITCH_PROXY_CONFIG=", NULL };
    static const struct {
        char *argv[4];
        char **env;
        const char *file;
    } cases[] = {
        { { NULL }, NULL, NULL },
        { { NULL }, env, "env.json" },
        { { NULL }, empty, NULL },
        { { "--config", "a.json" }, env, "a.json" },
        { { "--config=a.json" }, env, "a.json" },
        { { "--mode=off", "--config=a.json" }, NULL, "a.json" },
        { { "--config=a.json", "--config", "b.json" }, NULL, "b.json" },
        { { "--config" }, env, "env.json" }, /* config_load complains about it */
        { { "--config=" }, env, "env.json" },
        { { "--configs=a.json" }, NULL, NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int argc = 0;
        while (cases[i].argv[argc])
            argc++;
        const char *file = config_file((char **)cases[i].argv, argc, cases[i].env);
        if (!file != !cases[i].file || (file && strcmp(file, cases[i].file) != 0))
            fail_msg("case %zu: %s", i, file ? file : "none");
    }
}

/* -- variables ----------------------------------------------------------------------- */

static void service_links_of_kubernetes_are_no_options(void **state)
{
    (void)state;
    static char *env[] = {
        "TRIPSWITCH_PROXY_SERVICE_HOST=10.0.0.1",
        "TRIPSWITCH_PROXY_SERVICE_PORT=3128",
        "TRIPSWITCH_PROXY_SERVICE_PORT_HTTP=3128",
        "TRIPSWITCH_PROXY_PORT=tcp://10.0.0.1:3128",
        "TRIPSWITCH_PROXY_PORT_3128_TCP=tcp://10.0.0.1:3128",
        "TRIPSWITCH_PROXY_PORT_3128_TCP_PROTO=tcp",
        "TRIPSWITCH_PROXY_PORT_3128_TCP_PORT=3128",
        "TRIPSWITCH_PROXY_PORT_3128_TCP_ADDR=10.0.0.1",
        "TRIPSWITCH_PROXY_PORT_53_UDP=udp://10.0.0.1:53",
        "TRIPSWITCH_PROXY_ADMIN_SERVICE_HOST=10.0.0.2",
        "TRIPSWITCH_PROXY_ADMIN_SERVICE_PORT=80",
        "TRIPSWITCH_PROXY_ADMIN_PORT_80_TCP=tcp://10.0.0.2:80",
        "TRIPSWITCH_PROXY_CONFIG=/etc/x",
        "TRIPSWITCH_PROXY_DISABLED=because",
        "TRIPSWITCH_PROXY_WORKERS=", /* empty is unset */
        "TRIPSWITCH_PROXY_TYPO=",
        "TRIPSWITCH_WORKSPACE_ID=ws",
        "MY_TRIPSWITCH_PROXY_X=1",
        NULL,
    };
    struct outcome_of_load plain = load_env(NULL), r = load_env(env);

    expect_errors("links", &r, NULL);
    expect_warnings("links", &r, "");
    assert_string_equal(r.cfg->hash, plain.cfg->hash);
    load_free(&r);
    load_free(&plain);
}

static void unknown_variables_are_errors(void **state)
{
    (void)state;
    static const struct {
        char *variable;
        const char *says;
    } cases[] = {
        { "TRIPSWITCH_PROXY_LISTENS=x", "did you mean \"TRIPSWITCH_PROXY_LISTEN\"?" },
        { "TRIPSWITCH_PROXY_REQUIRE_SYNC=1",
          "did you mean \"TRIPSWITCH_PROXY_CONTROL_REQUIRE_SYNC\"?" },
        { "TRIPSWITCH_PROXY_DISABLE=x", "did you mean \"TRIPSWITCH_PROXY_DISABLED\"?" },
        { "TRIPSWITCH_PROXY_CONFIGS=x", "did you mean \"TRIPSWITCH_PROXY_CONFIG\"?" },
        { "TRIPSWITCH_PROXY_ROUTES=x", "in the file only" },
        { "TRIPSWITCH_PROXY_QQQQ=x", "TRIPSWITCH_PROXY_QQQQ: unknown variable\n" },
        { "TRIPSWITCH_PROXY_PORT_x_TCP=1", "unknown variable" },
        { "TRIPSWITCH_PROXY_PORT_80_TCPX=1", "unknown variable" },
        { "TRIPSWITCH_PROXY_SERVICE_PORTS=1", "unknown variable" },
        { "TRIPSWITCH_PROXY_API_KEY=eb_pk_hidden", "TRIPSWITCH_API_KEY_FILE" },
        { "TRIPSWITCH_PROXY_CONTROL_API_KEY=eb_pk_hidden", "TRIPSWITCH_API_KEY_FILE" },
        { "TRIPSWITCH_PROXY_INGEST_SECRET=eb_pk_hidden", "TRIPSWITCH_INGEST_SECRET" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *env[] = { cases[i].variable, NULL };
        struct outcome_of_load r = load_env(env);
        if (!strstr(strbuf_str(&r.errors), cases[i].says))
            fail_msg("%s: %s", cases[i].variable, strbuf_str(&r.errors));
        assert_null(strstr(strbuf_str(&r.errors), "hidden"));
        load_free(&r);
    }
}

/* -- secrets ------------------------------------------------------------------------- */

static char *write_file(const char *name, const char *data, size_t len, mode_t mode)
{
    static char path[128];

    snprintf(path, sizeof(path), "/tmp/test_config_load.%d.%s", (int)getpid(), name);
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, data, len) == (ssize_t)len && fchmod(fd, mode) == 0);
    close(fd);
    return path;
}

static struct outcome_of_load load_key_file(const char *data, size_t len, mode_t mode)
{
    char variable[192];
    char *path = write_file("key", data, len, mode);
    char *env[] = { "TRIPSWITCH_PROJECT_ID=proj_1", variable, NULL };

    snprintf(variable, sizeof(variable), "TRIPSWITCH_API_KEY_FILE=%s", path);
    struct outcome_of_load r = load_env(env);
    replace_all(&r.errors, path, "KEY");
    replace_all(&r.warnings, path, "KEY");
    unlink(path);
    return r;
}

static void a_secret_file_may_end_with_one_line_end(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t len;
        const char *error;
    } cases[] = {
        { "eb_pk_1", 7, NULL },
        { "eb_pk_1\n", 8, NULL },
        { "eb_pk_1\r\n", 9, NULL },
        { "eb_pk_1\n\n", 9, "holds more than one line" },
        { "\neb_pk_1", 8, "holds more than one line" },
        { "eb_\npk_1", 8, "holds more than one line" },
        { "eb_\rpk_1", 8, "holds more than one line" },
        { "eb_pk_1\0", 8, "holds a NUL byte" },
        { "", 0, "is empty" },
        { "\n", 1, "is empty" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char error[128];
        struct outcome_of_load r = load_key_file(cases[i].data, cases[i].len, 0600);
        if (cases[i].error) {
            snprintf(error, sizeof(error), "TRIPSWITCH_API_KEY_FILE: KEY: %s\n", cases[i].error);
            if (!strstr(strbuf_str(&r.errors), error))
                fail_msg("case %zu: %s", i, strbuf_str(&r.errors));
        } else {
            expect_errors("line end", &r, NULL);
            assert_string_equal(r.cfg->api_key, "eb_pk_1");
        }
        load_free(&r);
    }
}

static void a_secret_file_that_others_can_read_is_warned_about(void **state)
{
    (void)state;
    static const struct {
        mode_t mode;
        bool warned;
    } cases[] = {
        { 0400, false }, { 0600, false }, { 0640, false }, { 0440, false },
        { 0644, true },  { 0660, true },  { 0604, true },  { 0601, true },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_key_file("eb_pk_1", 7, cases[i].mode);
        expect_errors("mode", &r, NULL);
        bool warned = strstr(strbuf_str(&r.warnings), "TRIPSWITCH_API_KEY_FILE: KEY can be read "
                                                      "by others; chmod 0640 or less\n") != NULL;
        if (warned != cases[i].warned)
            fail_msg("mode %o: %s", cases[i].mode, strbuf_str(&r.warnings));
        load_free(&r);
    }
}

static void a_secret_file_has_a_limit(void **state)
{
    (void)state;
    for (size_t len = 4096; len <= 4097; len++) {
        char *data = malloc(len);
        memset(data, 'k', len);
        struct outcome_of_load r = load_key_file(data, len, 0600);
        assert_int_equal(r.cfg != NULL, len == 4096);
        if (!r.cfg)
            assert_non_null(strstr(strbuf_str(&r.errors), "KEY: is too large"));
        load_free(&r);
        free(data);
    }
}

static void the_project_is_configured_wholly_or_not_at_all(void **state)
{
    (void)state;
    static const struct {
        char *env[6];
        const char *errors; /* a part; NULL: none */
        bool embedded;
    } cases[] = {
        { { NULL }, NULL, true },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY }, NULL, false },
        { { "TRIPSWITCH_PROXY_CONTROL_PROJECT_ID=p", KEY }, NULL, false },
        { { "TRIPSWITCH_PROJECT_ID=p", "TRIPSWITCH_PROJECT_KEY=eb_pk_1" }, NULL, false },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY, "TRIPSWITCH_INGEST_SECRET=" SECRET }, NULL, false },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY "\n" }, NULL, false },
        { { "TRIPSWITCH_PROXY_CONTROL_URL=embedded", "TRIPSWITCH_PROJECT_ID=p", KEY }, NULL, true },
        { { "TRIPSWITCH_PROJECT_ID=p" },
          "TRIPSWITCH_PROJECT_ID: there is no key for the project; set TRIPSWITCH_API_KEY",
          false },
        { { KEY }, "no project is configured; set TRIPSWITCH_PROJECT_ID", false },
        { { "TRIPSWITCH_INGEST_SECRET=" SECRET }, "no project is configured", false },
        { { "TRIPSWITCH_BASE_URL=https://h" },
          "TRIPSWITCH_BASE_URL: no project is configured",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", "TRIPSWITCH_PROXY_CONTROL_PROJECT_ID=p", KEY },
          NULL,
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", "TRIPSWITCH_PROXY_CONTROL_PROJECT_ID=q", KEY },
          "TRIPSWITCH_PROXY_CONTROL_PROJECT_ID: TRIPSWITCH_PROJECT_ID names another project",
          false },
        { { "TRIPSWITCH_PROJECT_ID=eb_pk_x", KEY },
          "TRIPSWITCH_PROJECT_ID: this is a key, not a project id",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY, "TRIPSWITCH_PROJECT_KEY=eb_pk_0123" }, NULL, false },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY, "TRIPSWITCH_PROJECT_KEY=eb_pk_other" },
          "TRIPSWITCH_PROJECT_KEY: TRIPSWITCH_API_KEY is set as well; keep one",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY, "TRIPSWITCH_API_KEY_FILE=/dev/null" },
          "TRIPSWITCH_API_KEY: TRIPSWITCH_API_KEY_FILE is set as well; keep one",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY, "TRIPSWITCH_PROXY_API_KEY_FILE=/dev/null" },
          "TRIPSWITCH_PROXY_API_KEY_FILE: TRIPSWITCH_API_KEY is set as well; keep one",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", "TRIPSWITCH_API_KEY_FILE=/nonexistent" },
          "TRIPSWITCH_API_KEY_FILE: /nonexistent: No such file or directory",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", "TRIPSWITCH_API_KEY_FILE=/dev/null" },
          "/dev/null: is not a regular file",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", "TRIPSWITCH_API_KEY=eb pk" },
          "TRIPSWITCH_API_KEY: the key has a space",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY, "TRIPSWITCH_INGEST_SECRET=ik_0123" },
          "TRIPSWITCH_INGEST_SECRET: the secret is not 64 hexadecimal digits\n",
          false },
        { { "TRIPSWITCH_PROJECT_ID=p", KEY, "TRIPSWITCH_INGEST_SECRET=" SECRET "0" },
          "is not 64 hexadecimal digits\n",
          false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_env((char **)cases[i].env);
        if (cases[i].errors) {
            if (!strstr(strbuf_str(&r.errors), cases[i].errors))
                fail_msg("case %zu: %s", i, strbuf_str(&r.errors));
        } else {
            expect_errors("project", &r, NULL);
            assert_int_equal(r.cfg->control.embedded, cases[i].embedded);
            assert_int_equal(r.cfg->api_key == NULL, cases[i].embedded);
            assert_int_equal(r.cfg->control.url == NULL, cases[i].embedded);
        }
        load_free(&r);
    }
}

static void the_base_url_is_the_control_url(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        char *variable;
        char *flag;
        const char *url; /* NULL: refused */
    } cases[] = {
        { "{}", "X=", NULL, "https://api.tripswitch.dev" },
        { "{}", "TRIPSWITCH_BASE_URL=https://h/", NULL, "https://h" },
        { "{\"control\": {\"url\": \"https://h//\"}}", "X=", NULL, "https://h" },
        { "{\"control\": {\"url\": \"https://h\"}}", "TRIPSWITCH_BASE_URL=https://h/", NULL,
          "https://h" },
        { "{\"control\": {\"url\": \"https://h\"}}", "TRIPSWITCH_BASE_URL=https://g", NULL, NULL },
        { "{}", "TRIPSWITCH_BASE_URL=https://g", "--control-url=https://g/", "https://g" },
        { "{}", "TRIPSWITCH_BASE_URL=https://g", "--control-url=https://h", NULL },
        { "{\"control\": {\"url\": null}}", "TRIPSWITCH_BASE_URL=https://g", NULL, "https://g" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *env[] = { "TRIPSWITCH_PROJECT_ID=p", KEY, cases[i].variable, NULL };
        char *flags[] = { cases[i].flag, NULL };
        struct outcome_of_load r = load_all(cases[i].json, strlen(cases[i].json), flags, env);
        if (!cases[i].url) {
            if (!strstr(strbuf_str(&r.errors), "TRIPSWITCH_BASE_URL is set to another value"))
                fail_msg("case %zu: %s", i, strbuf_str(&r.errors));
        } else {
            expect_errors("url", &r, NULL);
            assert_string_equal(r.cfg->control.url, cases[i].url);
        }
        load_free(&r);
    }
}

static void a_clear_text_control_plane_is_warned_about_beyond_loopback(void **state)
{
    (void)state;
    static const struct {
        char *variable;
        bool warned;
    } cases[] = {
        { "TRIPSWITCH_BASE_URL=http://127.0.0.1:8080", false },
        { "TRIPSWITCH_BASE_URL=http://127.9.9.9", false },
        { "TRIPSWITCH_BASE_URL=http://localhost:1", false },
        { "TRIPSWITCH_BASE_URL=http://[::1]:1", false },
        { "TRIPSWITCH_BASE_URL=https://h", false },
        { "TRIPSWITCH_BASE_URL=http://h", true },
        { "TRIPSWITCH_BASE_URL=http://10.0.0.1", true },
        { "TRIPSWITCH_BASE_URL=http://localhost.example", true },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *env[] = { "TRIPSWITCH_PROJECT_ID=p", KEY, cases[i].variable, NULL };
        struct outcome_of_load r = load_env(env);
        expect_errors("clear", &r, NULL);
        if ((strstr(strbuf_str(&r.warnings), "in clear") != NULL) != cases[i].warned)
            fail_msg("%s: %s", cases[i].variable, strbuf_str(&r.warnings));
        load_free(&r);
    }
}

/* Whatever is wrong with it and wherever it was put, no message and no output holds it. */
static void a_secret_is_never_repeated(void **state)
{
    (void)state;
    static const char needle[] = "s3cr3tneedle";
    static const char *const json[] = {
        "{\"api_key\": \"%s\"}",
        "{\"ingest_secret\": \"%s\"}",
        "{\"project_key\": \"%s\"}",
        "{\"control\": {\"api_key\": \"%s\"}}",
        "{\"control\": {\"ingest_secret\": [\"%s\"]}}",
        "{\"control\": {\"project_id\": \"%s \"}}",
        "{\"control\": {\"proxy\": \"http://u:%s@h:x\"}}",
        "{\"control\": {\"proxy\": \"http://u:%s@h:1\"}}",
        "{\"control\": {\"proxy\": \"u:%s@h:1\"}}",
        "{\"control\": {\"url\": \"https://u:%s@h\"}}",
        "{\"control\": {\"url\": \"u:%s@h\"}}",
        "{\"api_kye\": \"%s\"}",
    };
    static const char *const args[] = {
        "--api-key=%s",
        "--ingest-secret=%s",
        "--control-api-key=%s",
        "--api_key=%s",
        "--control-proxy=http://u:%s@h:1",
        "--control-url=https://u:%s@h",
        "--apikey=%s",
        "--project-key=%s",
    };
    static const char *const variables[] = {
        "TRIPSWITCH_API_KEY=%s x",
        "TRIPSWITCH_API_KEY=a\n%s",
        "TRIPSWITCH_API_KEY=eb_admin_%s",
        "TRIPSWITCH_INGEST_SECRET=%s",
        "TRIPSWITCH_PROJECT_ID=eb_pk_%s",
        "TRIPSWITCH_PROXY_API_KEY=%s",
        "TRIPSWITCH_PROXY_APIKEY=%s",
        "TRIPSWITCH_BASE_URL=https://u:%s@h",
        "TRIPSWITCH_PROXY_CONTROL_PROXY=http://u:%s@h:1",
    };
    char text[256];

    for (size_t i = 0; i < ARRAY_LEN(json) + ARRAY_LEN(args) + ARRAY_LEN(variables); i++) {
        size_t a = i - ARRAY_LEN(json), v = a - ARRAY_LEN(args);
        bool is_json = i < ARRAY_LEN(json), is_flag = !is_json && a < ARRAY_LEN(args);
        snprintf(text, sizeof(text), is_json ? json[i] : is_flag ? args[a] : variables[v], needle);
        char *one[] = { text, NULL };
        struct outcome_of_load r = is_json   ? load_json(text)
                                   : is_flag ? load_flags(one)
                                             : load_env(one);
        struct strbuf written = STRBUF_INIT;
        if (r.cfg)
            config_write(r.cfg, &written);
        if (strstr(strbuf_str(&r.errors), needle) || strstr(strbuf_str(&r.warnings), needle) ||
            strstr(strbuf_str(&written), needle))
            fail_msg("%s\n%s%s%s", text, strbuf_str(&r.errors), strbuf_str(&r.warnings),
                     strbuf_str(&written));
        if (!r.cfg && !r.errors.len)
            fail_msg("%s: refused without a word", text);
        strbuf_free(&written);
        load_free(&r);
    }
    char *spaced[] = { "--api-key", "s3cr3tneedle", "--apikye", "s3cr3tneedle", NULL };
    struct outcome_of_load r = load_flags(spaced);
    assert_null(strstr(strbuf_str(&r.errors), needle));
    load_free(&r);
}

static void a_secret_in_the_wrong_place_is_told_the_right_one(void **state)
{
    (void)state;
    char *flag[] = { "--api-key=x", NULL };
    struct outcome_of_load r = load_flags(flag);
    expect_errors("flag", &r,
                  "--api-key: every local user can read flags: a secret does not belong here; set "
                  "TRIPSWITCH_API_KEY, or name its file with TRIPSWITCH_API_KEY_FILE or "
                  "api_key_file\n");
    load_free(&r);
    r = load_json("{\"control\":\n {\"ingest_secret\": \"x\"}}");
    expect_errors("file", &r,
                  "FILE:2:3: /control/ingest_secret: a secret does not belong here; set "
                  "TRIPSWITCH_INGEST_SECRET, or name its file with TRIPSWITCH_INGEST_SECRET_FILE "
                  "or ingest_secret_file\n");
    load_free(&r);
}

static void secret_files_may_be_named_by_file_and_flag(void **state)
{
    (void)state;
    char json[256], flag[192];
    char *path = strdup(write_file("named", "eb_pk_named\n", 12, 0600));
    char *env[] = { "TRIPSWITCH_PROJECT_ID=p", NULL, NULL };
    char *flags[] = { flag, NULL };

    snprintf(json, sizeof(json), "{\"api_key_file\": \"%s\"}", path);
    snprintf(flag, sizeof(flag), "--api-key-file=%s", path);
    struct outcome_of_load r = load_all(json, strlen(json), NULL, env);
    expect_errors("file", &r, NULL);
    assert_string_equal(r.cfg->api_key, "eb_pk_named");
    load_free(&r);

    env[1] = KEY; /* beats the file ... */
    r = load_all(json, strlen(json), NULL, env);
    assert_string_equal(r.cfg->api_key, "eb_pk_0123");
    load_free(&r);

    r = load_all("{}", 2, flags, env); /* ... and is beaten by the flag */
    assert_string_equal(r.cfg->api_key, "eb_pk_named");
    load_free(&r);
    unlink(path);
    free(path);
}

static void a_rotated_secret_is_noticed(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_config_load.XXXXXX", path[128], old_dir[128], new_dir[128], link[128];
    char other[128], variable[192];
    char *env[] = { "TRIPSWITCH_PROJECT_ID=p", variable, NULL };

    /* As the kubelet does it: key -> ..data/key, ..data -> a directory that is swapped. */
    assert_non_null(mkdtemp(dir));
    snprintf(old_dir, sizeof(old_dir), "%s/old", dir);
    snprintf(new_dir, sizeof(new_dir), "%s/new", dir);
    snprintf(link, sizeof(link), "%s/..data", dir);
    snprintf(other, sizeof(other), "%s/..tmp", dir);
    assert_int_equal(mkdir(old_dir, 0700) | mkdir(new_dir, 0700), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%.100s/key", i ? new_dir : old_dir);
        FILE *f = fopen(path, "w");
        fputs(i ? "eb_pk_new" : "eb_pk_old", f);
        fclose(f);
    }
    assert_int_equal(symlink("old", link), 0);
    snprintf(path, sizeof(path), "%.60s/key", dir);
    assert_int_equal(symlink("..data/key", path), 0);
    snprintf(variable, sizeof(variable), "TRIPSWITCH_API_KEY_FILE=%s", path);

    struct outcome_of_load r = load_env(env);
    expect_errors("rotation", &r, NULL);
    assert_string_equal(r.cfg->api_key, "eb_pk_old");
    assert_false(config_secrets_changed(r.cfg));
    assert_int_equal(symlink("new", other) | rename(other, link), 0);
    assert_true(config_secrets_changed(r.cfg));
    struct outcome_of_load next = load_env(env);
    assert_string_equal(next.cfg->api_key, "eb_pk_new");
    assert_string_equal(next.cfg->hash, r.cfg->hash); /* keys are not in it */
    assert_false(config_secrets_changed(next.cfg));
    assert_int_equal(unlink(path), 0);
    assert_true(config_secrets_changed(next.cfg));
    load_free(&r);
    load_free(&next);
    unlink(link);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%.100s/key", i ? new_dir : old_dir);
        unlink(path);
        rmdir(i ? new_dir : old_dir);
    }
    rmdir(dir);
}

static void a_config_without_secret_files_never_changes_by_itself(void **state)
{
    (void)state;
    struct outcome_of_load r = load_env(NULL);
    assert_false(config_secrets_changed(r.cfg));
    load_free(&r);
}

/* -- what options say together -------------------------------------------------------- */

static void a_listener_beyond_loopback_needs_allow_clients(void **state)
{
    (void)state;
    static const struct {
        char *argv[4];
        const char *errors; /* a part; NULL: none */
    } cases[] = {
        { { "--listen=127.0.0.1:1" }, NULL },
        { { "--listen=127.8.8.8:1" }, NULL },
        { { "--listen=[::1]:1" }, NULL },
        { { "--listen=[::ffff:127.0.0.1]:1" }, NULL },
        { { "--listen=0.0.0.0:1" }, "--listen: an address beyond loopback needs allow_clients" },
        { { "--listen=[::]:1" }, "--listen: an address beyond loopback needs allow_clients" },
        { { "--listen=127.0.0.1:1,10.0.0.1:1" }, "an address beyond loopback" },
        { { "--listen=0.0.0.0:1", "--allow-clients=10.0.0.0/8" }, NULL },
        { { "--telemetry-listen=0.0.0.0:1" }, NULL },
        { { "--telemetry-listen=off" }, NULL },
        { { "--admin-listen=0.0.0.0:1" }, "--admin-listen: must be on loopback" },
        { { "--admin-listen=off" }, NULL },
        { { "--listen=off" }, "--listen: \"off\" has no port" },
        { { "--listen=" }, "--listen: there is nothing to listen on" },
        { { "--listen=127.0.0.1:9,127.0.0.1:9" }, "--listen: listen has 127.0.0.1:9 twice\n" },
        { { "--listen=127.0.0.1:3130" }, "listen and telemetry_listen both want 127.0.0.1:3130" },
        { { "--listen=127.0.0.1:0,127.0.0.1:0" }, NULL },
        { { "--listen=localhost:3128" }, "write \"127.0.0.1:3128\" or \"[::1]:3128\"" },
        { { "--telemetry-listen=off,127.0.0.1:1" }, "\"off\" has no port" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_flags((char **)cases[i].argv);
        if (!cases[i].errors)
            expect_errors(cases[i].argv[0], &r, NULL);
        else if (!strstr(strbuf_str(&r.errors), cases[i].errors))
            fail_msg("%s: %s", cases[i].argv[0], strbuf_str(&r.errors));
        load_free(&r);
    }
}

static void connect_reaches_any_port_only_while_just_loopback_may_connect(void **state)
{
    (void)state;
    static const struct {
        char *argv[4];
        unsigned first, last;
    } cases[] = {
        { { NULL }, 1, 65535 },
        { { "--allow-clients=127.0.0.1" }, 1, 65535 },
        { { "--allow-clients=127.0.0.0/8,::1" }, 1, 65535 },
        { { "--allow-clients=127.0.0.0/8,10.0.0.0/8" }, 443, 443 },
        { { "--allow-clients=126.0.0.0/7" }, 443, 443 },
        { { "--allow-clients=::/0" }, 443, 443 },
        { { "--allow-clients=0.0.0.0/0", "--access-connect-ports=8000-9000" }, 8000, 9000 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_flags((char **)cases[i].argv);
        expect_errors("ports", &r, NULL);
        assert_int_equal(r.cfg->access.connect_ports.count, 1);
        assert_int_equal(r.cfg->access.connect_ports.items[0].first, cases[i].first);
        assert_int_equal(r.cfg->access.connect_ports.items[0].last, cases[i].last);
        load_free(&r);
    }
}

static void the_embedded_control_plane_gets_samples_at_once_unless_told_otherwise(void **state)
{
    (void)state;
    static char *remote[] = { "TRIPSWITCH_PROJECT_ID=p", KEY, NULL };
    static char *told[] = { "--samples-flush-interval=3s", "--samples-gzip",
                            "--samples-max-posts-per-second=7", NULL };
    static const struct {
        char **env, **flags;
        int64_t flush_ms, urgent_ms, posts;
        bool gzip;
    } cases[] = {
        { NULL, NULL, 200, 200, OFF, false },
        { NULL, told, 3000, 200, 7, true },
        { remote, NULL, 15000, 1000, 10, true },
        { remote, told, 3000, 1000, 7, true },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_all(NULL, 0, cases[i].flags, cases[i].env);
        expect_errors("samples", &r, NULL);
        assert_int_equal(r.cfg->samples.flush_interval_ms, cases[i].flush_ms);
        assert_int_equal(r.cfg->samples.urgent_interval_ms, cases[i].urgent_ms);
        assert_int_equal(r.cfg->samples.max_posts_per_second, cases[i].posts);
        assert_int_equal(r.cfg->samples.gzip, cases[i].gzip);
        load_free(&r);
    }
}

static void pairs_must_be_in_order(void **state)
{
    (void)state;
    static const struct {
        char *argv[3];
        const char *errors;
    } cases[] = {
        { { "--drain-min=25s" }, NULL },
        { { "--drain-min=26s" }, "--drain-min: drain.min is above drain.max\n" },
        { { "--drain-max=1s" }, "--drain-max: drain.min is above drain.max\n" },
        { { "--dns-min-ttl=60s" }, NULL },
        { { "--dns-min-ttl=61s" }, "--dns-min-ttl: dns.min_ttl is above dns.max_ttl\n" },
        { { "--limits-buffered-total=1MiB", "--limits-buffer=1MiB" }, NULL },
        { { "--limits-buffered-total=1MiB", "--limits-buffer=2MiB" },
          "--limits-buffer: limits.buffer is above limits.buffered_total\n" },
        { { "--samples-buffer=500" }, NULL },
        { { "--samples-buffer=499" },
          "--samples-buffer: samples.buffer (499) is smaller than samples.batch (500)\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_flags((char **)cases[i].argv);
        expect_errors(cases[i].argv[0], &r, cases[i].errors);
        load_free(&r);
    }
}

static void what_only_a_restart_applies_is_named(void **state)
{
    (void)state;
    static const struct {
        char *argv[3];
        const char *name;
    } cases[] = {
        { { NULL }, NULL },
        { { "--mode=off", "--drain-min=1s" }, NULL },
        { { "--limits-buffered-total=64MiB" }, NULL },
        { { "--listen=127.0.0.1:3128,[::1]:3128" }, NULL },
        { { "--listen=127.0.0.1:3128" }, "listen" },
        { { "--telemetry-listen=off" }, "telemetry_listen" },
        { { "--admin-listen=off" }, "admin_listen" },
        { { "--workers=2" }, "workers" },
        { { "--limits-buffer=128KiB" }, "limits.buffer" },
        { { "--control-url=embedded" }, NULL }, /* it already is */
    };
    char *env[] = { "TRIPSWITCH_PROJECT_ID=p", KEY, NULL };
    struct outcome_of_load running = load_flags(NULL);

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load next = load_flags((char **)cases[i].argv);
        const char *name;
        expect_errors("restart", &next, NULL);
        name = config_restart_needed(running.cfg, next.cfg);
        if (!name != !cases[i].name || (name && strcmp(name, cases[i].name) != 0))
            fail_msg("case %zu: %s", i, name ? name : "nothing");
        load_free(&next);
    }
    struct outcome_of_load remote = load_env(env);
    assert_string_equal(config_restart_needed(running.cfg, remote.cfg), "control.url");
    load_free(&remote);
    load_free(&running);
}

static void the_hash_follows_the_values_and_not_their_origin(void **state)
{
    (void)state;
    char *flag[] = { "--drain-min=2s", NULL },
         *env[] = { "TRIPSWITCH_PROXY_DRAIN_MIN=2000ms", NULL };
    struct outcome_of_load r[] = {
        load_json("{}"),
        load_json("{\"drain\": {\"min\": \"2s\"}} // comment"),
        load_flags(flag),
        load_env(env),
        load_json("{\"drain\": {\"min\": \"5s\"}}"), /* the default */
        load_json("{\"routes\": [{\"breakers\": [\"a\"], \"router\": \"r\"}]}"),
        load_json("{\"routes\": [{\"breakers\": [\"b\"], \"router\": \"r\"}]}"),
        load_json("{\"embedded\": {\"auto_breaker\": {\"threshold\": 6}}}"),
        load_json("{\"global_tags\": {\"a\": \"b\"}}"),
    };
    static const unsigned same_as[] = { 0, 1, 1, 1, 0, 5, 6, 7, 8 };

    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        for (size_t k = 0; k < ARRAY_LEN(r); k++)
            if ((strcmp(r[i].cfg->hash, r[k].cfg->hash) == 0) != (same_as[i] == same_as[k]))
                fail_msg("%zu and %zu", i, k);
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        load_free(&r[i]);
}

static void a_file_of_the_wrong_shape_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *errors;
    } cases[] = {
        { "[]", "FILE:1:1: /: expected an object: { ... }\n" },
        { "3", "FILE:1:1: /: expected an object: { ... }\n" },
        { "{\"drain\": 3}", "FILE:1:11: /drain: expected an object: { ... }\n" },
        { "{\"drain.min\": \"3s\"}", "FILE:1:2: /drain.min: unknown key\n" },
        { "{\"DRAIN\": {}}", "FILE:1:2: /DRAIN: unknown key\n" },
        { "{\"state_max_age\": \"1s\"}", "FILE:1:2: /state_max_age: unknown key; did you mean "
                                         "\"/control/state_max_age\"?\n" },
        { "{\"reject\": {}}",
          "FILE:1:2: /reject: unknown key; did you mean \"/routes/0/reject\"?\n" },
        { "{\"workers\": \"4\"}", "FILE:1:13: /workers: expected a whole number without quotes\n" },
        { "{\"workers\": 1.5}", "FILE:1:13: /workers: \"1.5\" is not a whole number\n" },
        { "{\"workers\": 257}", "FILE:1:13: /workers: 257 is above 256\n" },
        { "{\"workers\": -1}", "FILE:1:13: /workers: -1 is below 0\n" },
        { "{\"workers\": 1e2}", NULL },
        { "{\"workers\": 1e300}", "FILE:1:13: /workers: \"1.0000000000000001e+300\" is not a "
                                  "whole number\n" },
        { "{\"workers\": null}", "FILE:1:13: /workers: null is no value here; expected a whole "
                                 "number without quotes\n" },
        { "{\"via\": null}", NULL },
        { "{\"via\": 3}", "FILE:1:9: /via: expected text in quotes\n" },
        { "{\"listen\": \"127.0.0.1:1\"}", NULL },
        { "{\"listen\": [\"127.0.0.1:1\", 2]}",
          "FILE:1:28: /listen/1: this item does not belong here; expected \"address:port\" or a "
          "list of these\n" },
        { "{\"upgrades\": \"websocket\"}",
          "FILE:1:14: /upgrades: expected a list of texts: [\"...\", \"...\"]\n" },
        { "{\"control\": {\"require_sync\": \"true\"}}",
          "FILE:1:30: /control/require_sync: expected true or false, without quotes\n" },
        { "{\"limits\": {\"buffer\": 65536}}",
          "FILE:1:23: /limits/buffer: 65536 has no unit; write \"65536B\" or \"65536KiB\"\n" },
        { "{\"limits\": {\"connections_per_client\": \"off\"}}", NULL },
        { "{\"limits\": {\"connections_per_client\": \"10\"}}",
          "FILE:1:39: /limits/connections_per_client: expected a whole number without quotes, or "
          "\"off\"\n" },
        { "{\"limits\": {\"connections\": \"off\"}}",
          "FILE:1:28: /limits/connections: expected a whole number without quotes\n" },
        { "{\"timeouts\": {\"connect\": \"off\"}}",
          "FILE:1:26: /timeouts/connect: \"off\" is not a duration; write a number and ms, s, m, h "
          "or d, such as \"2s\"\n" },
        { "{\"timeouts\": {\"idle\": \"offf\"}}",
          "FILE:1:23: /timeouts/idle: \"offf\" is not a duration; write a number and ms, s, m, h "
          "or d, such as \"2s\", or \"off\"\n" },
        { "{\"access\": {\"connect_ports\": [443, \"8000-8099\"]}}", NULL },
        { "{\"$schema\": \"x\", \"global_tags\": {\"a\": \"{status}\"}}", NULL },
        { "{\"global_tags\": {\"a\": 1}}", "FILE:1:23: /global_tags/a: expected text in quotes\n" },
        { "{\"global_tags\": {\"\": \"x\"}}", "FILE:1:18: /global_tags/: \"\" is empty\n" },
        { "{\"routes\": {}}", "FILE:1:12: /routes: expected a list of objects: [{ ... }]\n" },
        { "{\"defaults\": []}", "FILE:1:14: /defaults: expected an object: { ... }\n" },
        { "{\"routes\": [1]}", "FILE:1:13: /routes/0: expected an object: { ... }\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_json(cases[i].json);
        expect_errors(cases[i].json, &r, cases[i].errors);
        load_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_said_gives_the_defaults),
        cmocka_unit_test(a_flag_beats_a_variable_and_a_variable_beats_the_file),
        cmocka_unit_test(a_higher_layer_replaces_a_list_and_flags_of_one_list_add_up),
        cmocka_unit_test(every_layer_lists_its_errors_in_one_run),
        cmocka_unit_test(flags_take_their_value_in_either_form),
        cmocka_unit_test(wrong_flags_are_named),
        cmocka_unit_test(the_file_is_named_by_flag_or_variable),
        cmocka_unit_test(service_links_of_kubernetes_are_no_options),
        cmocka_unit_test(unknown_variables_are_errors),
        cmocka_unit_test(a_secret_file_may_end_with_one_line_end),
        cmocka_unit_test(a_secret_file_that_others_can_read_is_warned_about),
        cmocka_unit_test(a_secret_file_has_a_limit),
        cmocka_unit_test(the_project_is_configured_wholly_or_not_at_all),
        cmocka_unit_test(the_base_url_is_the_control_url),
        cmocka_unit_test(a_clear_text_control_plane_is_warned_about_beyond_loopback),
        cmocka_unit_test(a_secret_is_never_repeated),
        cmocka_unit_test(a_secret_in_the_wrong_place_is_told_the_right_one),
        cmocka_unit_test(secret_files_may_be_named_by_file_and_flag),
        cmocka_unit_test(a_rotated_secret_is_noticed),
        cmocka_unit_test(a_config_without_secret_files_never_changes_by_itself),
        cmocka_unit_test(a_listener_beyond_loopback_needs_allow_clients),
        cmocka_unit_test(connect_reaches_any_port_only_while_just_loopback_may_connect),
        cmocka_unit_test(the_embedded_control_plane_gets_samples_at_once_unless_told_otherwise),
        cmocka_unit_test(pairs_must_be_in_order),
        cmocka_unit_test(what_only_a_restart_applies_is_named),
        cmocka_unit_test(the_hash_follows_the_values_and_not_their_origin),
        cmocka_unit_test(a_file_of_the_wrong_shape_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
