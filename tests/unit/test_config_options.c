#include "config/options.h"
#include "tests/unit/test_config.h"
#include <ctype.h>

static const struct option_table *const tables[] = {
    &global_options,        &route_options,   &header_rule_options, &body_rule_options,
    &metric_source_options, &breaker_options, &router_options,
};

static void every_option_is_declared_once_and_explained(void **state)
{
    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            const struct config_option *o = &tables[t]->rows[i];
            if (!o->help || !isupper((unsigned char)o->help[0]) ||
                o->help[strlen(o->help) - 1] != '.')
                fail_msg("%s: \"%s\" is no sentence", o->name, o->help ? o->help : "");
            for (const char *p = o->name; *p; p++)
                if (!islower((unsigned char)*p) && !strchr("._", *p))
                    fail_msg("%s: a name has lower-case letters, \".\" and \"_\"", o->name);
            for (size_t k = 0; k < i; k++) {
                const struct config_option *other = &tables[t]->rows[k];
                if (strcmp(o->name, other->name) == 0)
                    fail_msg("%s twice", o->name);
                if (o->offset == other->offset && o->offset != NOWHERE && o->offset != 0)
                    fail_msg("%s and %s have one place", o->name, other->name);
            }
            assert_ptr_equal(option_find(tables[t], o->name), o);
        }
        assert_null(option_find(tables[t], "nonesuch"));
    }
}

/* Else option_write_all would open one object twice. */
static void the_rows_of_a_section_stand_together(void **state)
{
    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
        for (size_t i = 1; i < tables[t]->count; i++) {
            const char *name = tables[t]->rows[i].name, *before = tables[t]->rows[i - 1].name;
            for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
                size_t len = (size_t)(dot - name) + 1;
                if (strncmp(before, name, len) == 0)
                    continue;
                for (size_t k = 0; k + 1 < i; k++)
                    if (strncmp(tables[t]->rows[k].name, name, len) == 0)
                        fail_msg("%s is apart from %s", name, tables[t]->rows[k].name);
            }
        }
    }
}

static void flags_and_variables_follow_from_the_path(void **state)
{
    (void)state;
    static const struct {
        const char *name, *flag, *variable;
    } cases[] = {
        { "listen", "--listen", "TRIPSWITCH_PROXY_LISTEN" },
        { "control.state_max_age", "--control-state-max-age",
          "TRIPSWITCH_PROXY_CONTROL_STATE_MAX_AGE" },
        { "drain.min", "--drain-min", "TRIPSWITCH_PROXY_DRAIN_MIN" },
        { "access_log.path", "--access-log-path", "TRIPSWITCH_PROXY_ACCESS_LOG_PATH" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf flag = STRBUF_INIT, variable = STRBUF_INIT;
        const struct config_option *o = option_find(&global_options, cases[i].name);
        option_flag_name(o, &flag);
        option_env_name(o, &variable);
        assert_string_equal(strbuf_str(&flag), cases[i].flag);
        assert_string_equal(strbuf_str(&variable), cases[i].variable);
        strbuf_free(&flag);
        strbuf_free(&variable);
    }
}

static void names_of_options_are_no_service_links_and_differ_from_each_other(void **state)
{
    (void)state;
    static const char *const ends[] = { "_SERVICE_HOST", "_SERVICE_PORT", "_PORT", "_PROTO",
                                        "_ADDR",         "_TCP",          "_UDP" };
    char *seen[256];
    size_t count = 0;

    for (size_t i = 0; i < global_options.count; i++) {
        struct strbuf variable = STRBUF_INIT;
        option_env_name(&global_options.rows[i], &variable);
        char *name = strbuf_take(&variable);
        for (size_t k = 0; k < ARRAY_LEN(ends); k++) {
            size_t n = strlen(ends[k]), len = strlen(name);
            if (len >= n && strcmp(name + len - n, ends[k]) == 0)
                fail_msg("%s looks like a service link", name);
        }
        assert_null(strstr(name, "_SERVICE_PORT_"));
        assert_null(strstr(name, "_PORT_"));
        for (size_t k = 0; k < count; k++)
            assert_string_not_equal(seen[k], name);
        seen[count++] = name;
    }
    while (count)
        free(seen[--count]);
}

/* The value of every option of the file, written and read again, is the same. */
static void what_is_written_can_be_read(void **state)
{
    (void)state;
    static char *env[] = { "TRIPSWITCH_API_KEY=k", NULL };
    FILE *f = fopen("config/example.json", "r");
    static char json[65536];
    assert_non_null(f);
    size_t len = fread(json, 1, sizeof(json), f);
    fclose(f);

    struct outcome_of_load first = load_all(json, len, NULL, env);
    struct strbuf written = STRBUF_INIT, again = STRBUF_INIT;
    expect_errors("example", &first, NULL);
    config_write(first.cfg, &written);

    /* A route and the automatic breaker are written with what they inherited or lack. */
    replace_all(&written, "\"name\":null,\"metric\":null,", "");
    struct outcome_of_load second = load_all(strbuf_str(&written), written.len, NULL, env);
    expect_errors(strbuf_str(&written), &second, NULL);
    config_write(second.cfg, &again);
    replace_all(&again, "\"name\":null,\"metric\":null,", "");
    assert_string_equal(strbuf_str(&again), strbuf_str(&written));
    assert_string_equal(first.cfg->hash, second.cfg->hash);
    strbuf_free(&written);
    strbuf_free(&again);
    load_free(&first);
    load_free(&second);
}

static void help_fits_80_columns_and_has_every_flag(void **state)
{
    (void)state;
    struct strbuf help = STRBUF_INIT;

    config_help(&help);
    assert_true(strbuf_ok(&help));
    for (const char *p = strbuf_str(&help); *p; p += *p == '\n') {
        size_t len = strcspn(p, "\n");
        if (len > 80)
            fail_msg("%zu columns: %.*s", len, (int)len, p);
        p += len;
    }
    for (size_t i = 0; i < global_options.count; i++) {
        const struct config_option *o = &global_options.rows[i];
        struct strbuf flag = STRBUF_INIT;
        strbuf_adds(&flag, "\n  ");
        option_flag_name(o, &flag);
        strbuf_addc(&flag, ' ');
        bool found = strstr(strbuf_str(&help), strbuf_str(&flag)) != NULL;
        if (found != option_is_text(o))
            fail_msg("%s", o->name);
        strbuf_free(&flag);
    }
    assert_non_null(strstr(strbuf_str(&help), "--config FILE"));
    assert_non_null(strstr(strbuf_str(&help), "TRIPSWITCH_API_KEY_FILE"));
    strbuf_free(&help);
}

/* To bring the file up to date: UPDATE_SCHEMA=1 build/asan/unit/test_config_options */
static void the_schema_file_is_the_tables(void **state)
{
    (void)state;
    struct strbuf schema = STRBUF_INIT;
    static char file[262144];

    config_schema(&schema);
    if (getenv("UPDATE_SCHEMA")) {
        FILE *out = fopen("config/schema.json", "w");
        assert_non_null(out);
        fputs(strbuf_str(&schema), out);
        fclose(out);
    }
    FILE *f = fopen("config/schema.json", "r");
    assert_non_null(f);
    file[fread(file, 1, sizeof(file) - 1, f)] = 0;
    fclose(f);
    if (strcmp(file, strbuf_str(&schema)) != 0)
        fail_msg("config/schema.json is out of date; run this test with UPDATE_SCHEMA=1");
    strbuf_free(&schema);
}

static void the_example_is_valid_quiet_and_shows_every_option(void **state)
{
    (void)state;
    static char *env[] = { "TRIPSWITCH_API_KEY=k",
                           "TRIPSWITCH_INGEST_SECRET="
                           "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                           NULL };
    FILE *f = fopen("config/example.json", "r");
    static char json[65536];
    assert_non_null(f);
    size_t len = fread(json, 1, sizeof(json) - 1, f);
    json[len] = 0;
    fclose(f);

    struct outcome_of_load r = load_all(json, len, NULL, env);
    expect_errors("example", &r, NULL);
    expect_warnings("example", &r, "");
    for (size_t t = 0; t < ARRAY_LEN(tables) - 1; t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            const char *name = tables[t]->rows[i].name, *dot = strrchr(name, '.');
            struct strbuf key = STRBUF_INIT;
            strbuf_addf(&key, "\"%s\":", dot ? dot + 1 : name);
            if (!strstr(json, strbuf_str(&key)))
                fail_msg("%s is not in the example", name);
            strbuf_free(&key);
        }
    }
    load_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option_is_declared_once_and_explained),
        cmocka_unit_test(the_rows_of_a_section_stand_together),
        cmocka_unit_test(flags_and_variables_follow_from_the_path),
        cmocka_unit_test(names_of_options_are_no_service_links_and_differ_from_each_other),
        cmocka_unit_test(what_is_written_can_be_read),
        cmocka_unit_test(help_fits_80_columns_and_has_every_flag),
        cmocka_unit_test(the_schema_file_is_the_tables),
        cmocka_unit_test(the_example_is_valid_quiet_and_shows_every_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
