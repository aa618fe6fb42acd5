/*
 * tests/config: one folder a mistake.
 *
 *     config.json   the file
 *     flags         optional: arguments, one per line
 *     environment   optional: NAME=value, one per line
 *     expected      every line that must be printed; "warning: " before a warning
 */
#include "tests/unit/test_config.h"
#include <dirent.h>

#define FOLDER    "tests/config"
#define LINES_MAX 32

static char *read_text(const char *folder, const char *name)
{
    char path[512];
    char *text = calloc(1, 65536);

    snprintf(path, sizeof(path), FOLDER "/%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    if (!f) {
        free(text);
        return NULL;
    }
    text[fread(text, 1, 65535, f)] = 0;
    fclose(f);
    return text;
}

/* Cuts text into its lines; the list ends with NULL. */
static int cut_lines(char *text, char **lines)
{
    int count = 0;

    for (char *line = text ? strtok(text, "\n") : NULL; line && count < LINES_MAX;
         line = strtok(NULL, "\n"))
        lines[count++] = line;
    lines[count] = NULL;
    return count;
}

static void add_prefixed(struct strbuf *out, const char *prefix, const char *text)
{
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "\n");
        strbuf_addf(out, "%s%.*s\n", prefix, (int)len, p);
        p += len + (p[len] == '\n');
    }
}

static bool run_case(const char *folder)
{
    char path[512], *flags[LINES_MAX + 1], *env[LINES_MAX + 1];
    char *flag_text = read_text(folder, "flags"), *env_text = read_text(folder, "environment");
    char *expected = read_text(folder, "expected");
    struct strbuf errors = STRBUF_INIT, warnings = STRBUF_INIT, got = STRBUF_INIT;
    struct config *cfg;

    snprintf(path, sizeof(path), FOLDER "/%s/config.json", folder);
    int argc = cut_lines(flag_text, flags);
    cut_lines(env_text, env);
    struct config_source src = { .file = path, .argv = flags, .argc = argc, .envp = env };
    int result = config_load(&src, &cfg, &errors, &warnings);
    add_prefixed(&got, "", strbuf_str(&errors));
    add_prefixed(&got, "warning: ", strbuf_str(&warnings));
    replace_all(&got, path, "config.json");
    bool ok = expected && *expected && strcmp(strbuf_str(&got), expected) == 0 &&
              (result == 0) == (errors.len == 0);
    if (!ok)
        print_error("%s\n got:\n%swant:\n%s\n", folder, strbuf_str(&got), expected ? expected : "");
    config_free(cfg);
    strbuf_free(&errors);
    strbuf_free(&warnings);
    strbuf_free(&got);
    free(flag_text);
    free(env_text);
    free(expected);
    return ok;
}

static void each_mistake_prints_what_its_folder_expects(void **state)
{
    (void)state;
    struct dirent **entries;
    int count = scandir(FOLDER, &entries, NULL, alphasort), ran = 0, failed = 0;

    assert_true(count >= 0);
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            failed += !run_case(entries[i]->d_name);
            ran++;
        }
        free(entries[i]);
    }
    free(entries);
    if (ran < 20)
        fail_msg("only %d folders", ran);
    if (failed)
        fail_msg("%d of %d folders", failed, ran);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_mistake_prints_what_its_folder_expects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
