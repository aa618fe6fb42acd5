/*
 * Every key of config/example.json, misspelt by one letter in several ways: the error
 * must name line and column, the pointer, and the right word in 95 of 100 cases.
 */
#include "config/text.h"
#include "tests/unit/test_config.h"

static char example[65536];
static size_t example_len;
static char *const env[] = { "TRIPSWITCH_API_KEY=k", NULL };

static int read_example(void **state)
{
    FILE *f = fopen("config/example.json", "r");

    (void)state;
    if (!f)
        return -1;
    example_len = fread(example, 1, sizeof(example), f);
    fclose(f);
    return example_len > 0 && example_len < sizeof(example) ? 0 : -1;
}

/* A key's name may be anything inside these. */
static bool names_are_free(const char *pointer)
{
    return strstr(pointer, "tags/") || strstr(pointer, "/metadata/") ||
           strstr(pointer, "/metrics/") || strstr(pointer, "/headers/") ||
           strcmp(pointer, "/$schema") == 0;
}

static size_t offset_of(unsigned line, unsigned column)
{
    size_t i = 0;

    for (unsigned l = 1; l < line; l++)
        i += strcspn(example + i, "\n") + 1;
    return i + column - 1; /* the example is ASCII */
}

#define WRONG_MAX 128

enum mutation { DROP, DOUBLE, CHANGE, SWAP, MUTATIONS };

/* The misspelt key, or false if that changes nothing. */
static bool misspell(const char *key, enum mutation how, char *out)
{
    size_t len = strlen(key), at = len / 2;

    memcpy(out, key, at);
    switch (how) {
    case DROP:
        snprintf(out + at, WRONG_MAX - at, "%s", key + at + 1);
        break;
    case DOUBLE:
        out[at] = key[at];
        snprintf(out + at + 1, WRONG_MAX - at - 1, "%s", key + at);
        break;
    case CHANGE:
        snprintf(out + at, WRONG_MAX - at, "%s", key + at);
        out[at] = key[at] == 'q' ? 'z' : 'q';
        break;
    case SWAP:
        snprintf(out + at, WRONG_MAX - at, "%s", key + at);
        if (at == 0)
            return false;
        out[at] = key[at - 1];
        out[at - 1] = key[at];
        break;
    case MUTATIONS:
        return false;
    }
    return strcmp(out, key) != 0;
}

struct tally {
    unsigned tried, named, suggested;
};

static void try_one(struct tally *tally, size_t offset, unsigned line, unsigned column,
                    const char *parent, const char *key, const char *wrong)
{
    struct strbuf json = STRBUF_INIT, place = STRBUF_INIT, hint = STRBUF_INIT;

    strbuf_add(&json, example, offset + 1);
    strbuf_adds(&json, wrong);
    strbuf_add(&json, example + offset + 1 + strlen(key), example_len - offset - 1 - strlen(key));
    struct outcome_of_load r = load_all(strbuf_str(&json), json.len, NULL, (char **)env);
    strbuf_addf(&place, "FILE:%u:%u: %s/%s: ", line, column, parent, wrong);
    strbuf_addf(&hint, "%sunknown key; did you mean \"%s\"?\n", strbuf_str(&place), key);

    tally->tried++;
    if (r.cfg)
        fail_msg("%s/%s was accepted", parent, wrong);
    if (strstr(strbuf_str(&r.errors), strbuf_str(&place)))
        tally->named++;
    else
        print_message("%s\ngot: %s", strbuf_str(&place), strbuf_str(&r.errors));
    if (strstr(strbuf_str(&r.errors), strbuf_str(&hint)))
        tally->suggested++;
    else
        print_message("no hint at %s for %s\n%s", parent, wrong, strbuf_str(&r.errors));
    strbuf_free(&json);
    strbuf_free(&place);
    strbuf_free(&hint);
    load_free(&r);
}

static void mutate(struct tally *tally, const struct text *t, const cJSON *node)
{
    for (const cJSON *c = node->child; c; c = c->next) {
        struct strbuf pointer = STRBUF_INIT;
        unsigned line, column;
        char wrong[WRONG_MAX];
        text_pointer(t, c, &pointer);
        if (c->string && !names_are_free(strbuf_str(&pointer))) {
            text_where(t, c, true, &line, &column);
            *strrchr(pointer.data, '/') = 0;
            for (int how = 0; how < MUTATIONS; how++)
                if (misspell(c->string, (enum mutation)how, wrong))
                    try_one(tally, offset_of(line, column), line, column, pointer.data, c->string,
                            wrong);
        }
        strbuf_free(&pointer);
        mutate(tally, t, c);
    }
}

static void a_misspelt_key_is_named_and_the_right_one_suggested(void **state)
{
    (void)state;
    struct strbuf errors = STRBUF_INIT;
    struct tally tally = { 0 };
    struct text *t;

    assert_int_equal(text_parse("f", example, example_len, &t, &errors), 0);
    mutate(&tally, t, text_root(t));
    print_message("%u misspelt, %u named, %u with the right word\n", tally.tried, tally.named,
                  tally.suggested);
    assert_true(tally.tried > 400);
    assert_int_equal(tally.named, tally.tried);
    if (tally.suggested * 100 < tally.tried * 95)
        fail_msg("%u of %u", tally.suggested, tally.tried);
    text_free(t);
    strbuf_free(&errors);
}

/* Cutting or spoiling the example anywhere is never worse than refused with a place. */
static void a_damaged_file_is_refused_with_a_place(void **state)
{
    (void)state;
    while (example[example_len - 1] != '}') /* what follows is not missed */
        example_len--;
    for (size_t cut = 1; cut < example_len; cut += 97) {
        struct outcome_of_load r = load_all(example, cut, NULL, (char **)env);
        if (r.cfg || strncmp(strbuf_str(&r.errors), "FILE:", 5) != 0)
            fail_msg("cut at %zu: %s", cut, strbuf_str(&r.errors));
        load_free(&r);
    }
}

/* Replaces the nth node below parent, counted in the order of the text. */
static bool replace_nth(cJSON *parent, size_t *n, const char *json)
{
    for (cJSON *c = parent->child; c; c = c->next) {
        if ((*n)-- == 0)
            return c->string ? cJSON_ReplaceItemInObjectCaseSensitive(parent, c->string,
                                                                      cJSON_CreateRaw(json))
                             : cJSON_ReplaceItemViaPointer(parent, c, cJSON_CreateRaw(json));
        if (replace_nth(c, n, json))
            return true;
    }
    return false;
}

/* Each value in turn is another: refused or accepted (load_all holds that a refusal has a
 * reason), never worse. */
static void a_value_of_another_type_never_harms_the_loader(void **state)
{
    (void)state;
    static const char *const values[] = { "null",    "true", "-1", "1e308",  "\"\"",
                                          "\"off\"", "[]",   "{}", "[null]", "{\"a\": [1]}" };
    struct strbuf errors = STRBUF_INIT;
    unsigned tried = 0, refused = 0;
    bool more = true;
    struct text *t;

    assert_int_equal(text_parse("f", example, example_len, &t, &errors), 0);
    for (size_t nth = 0; more; nth++) {
        for (size_t v = 0; v < ARRAY_LEN(values) && more; v++) {
            size_t n = nth;
            cJSON *copy = cJSON_Duplicate(text_root(t), true);
            more = replace_nth(copy, &n, values[v]);
            char *json = cJSON_PrintUnformatted(copy);
            struct outcome_of_load r = load_all(json, strlen(json), NULL, (char **)env);
            refused += r.cfg == NULL;
            tried++;
            load_free(&r);
            cJSON_free(json);
            cJSON_Delete(copy);
        }
    }
    print_message("%u replaced, %u refused\n", tried, refused);
    assert_true(refused > tried / 2);
    text_free(t);
    strbuf_free(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_misspelt_key_is_named_and_the_right_one_suggested),
        cmocka_unit_test(a_damaged_file_is_refused_with_a_place),
        cmocka_unit_test(a_value_of_another_type_never_harms_the_loader),
    };
    return cmocka_run_group_tests(tests, read_example, NULL);
}
