#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct text *read_file(struct loader *l, const char *path)
{
    struct text *text = NULL;
    size_t before = l->report.errors->len;

    text_read(path, &text, l->report.errors);
    l->report.error_count += l->report.errors->len > before;
    l->report.text = text;
    return text;
}

/* Low to high: each layer writes over those before it. */
static void apply_layers(struct loader *l, const struct config_source *src, const cJSON *root)
{
    l->layer = LAYER_DEFAULT;
    apply_defaults(l, &global_options, l->loaded);
    l->layer = LAYER_FILE;
    if (root)
        apply_object(l, &global_options, l->loaded, root);
    environment_apply(l, src->envp);
    flags_apply(l, src->argv, src->argc);
    secrets_apply(l, src->envp);
    users_apply(l);
}

/* FNV-1a, 64 bits: told apart is all that hashes of two files must be. */
static char *hash_values(struct loader *l)
{
    struct strbuf values = STRBUF_INIT;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    config_write(&l->loaded->config, &values);
    for (size_t i = 0; i < values.len; i++)
        hash = (hash ^ (unsigned char)values.data[i]) * UINT64_C(0x100000001b3);
    strbuf_free(&values);
    return arena_printf(l->arena, "%016llx", (unsigned long long)hash);
}

static void build(struct loader *l, const struct config_source *src)
{
    struct text *text = src->file ? read_file(l, src->file) : NULL;
    const cJSON *root = text ? text_root(text) : NULL;

    apply_layers(l, src, root);
    if (!src->file || text) { /* else what the file lacks would be complained about */
        cross_check(l);
        routes_apply(l, root);
        embedded_apply(l, root);
        cross_check_routes(l);
    }
    if (!l->report.error_count)
        l->loaded->config.hash = hash_values(l);
    text_free(text);
}

int config_load(const struct config_source *src, struct config **out, struct strbuf *errors,
                struct strbuf *warnings)
{
    struct loader l = {
        .loaded = xcalloc(1, sizeof(struct loaded)),
        .report = { .file = src->file, .errors = errors, .warnings = warnings },
        .origins = xcalloc(global_options.count, sizeof(struct origin)),
    };

    size_t old_errors = errors->len, old_warnings = warnings ? warnings->len : 0;

    l.loaded->original = l.loaded;
    l.loaded->copies = 1;
    l.arena = &l.loaded->arena;
    build(&l, src);
    report_sort(&l.report, errors, old_errors);
    if (warnings)
        report_sort(&l.report, warnings, old_warnings);
    if (src->file)
        l.loaded->config.file = arena_strdup(l.arena, src->file);
    free(l.origins);
    *out = &l.loaded->config;
    if (!l.report.error_count)
        return 0;
    config_free(*out);
    *out = NULL;
    return -1;
}

static struct loaded *loaded_of(struct config *cfg)
{
    return (struct loaded *)(void *)cfg;
}

static void unselect(struct route *r)
{
    if (r->breakers_metadata.count > 0)
        r->breakers = (struct string_list){ 0 };
    if (r->router_metadata.count > 0)
        r->router = NULL;
    r->breakers_found = r->routers_found = 0;
}

struct config *config_copy(struct config *cfg)
{
    struct loaded *copy = xcalloc(1, sizeof(*copy));
    struct config *c = &copy->config;

    *copy = *loaded_of(cfg);
    copy->arena = (struct arena){ 0 };
    copy->original->copies++;
    c->routes = arena_alloc(&copy->arena, (c->route_count + 1) * sizeof(*c->routes));
    for (size_t i = 0; i < c->route_count; i++) {
        c->routes[i] = cfg->routes[i];
        unselect(&c->routes[i]);
    }
    return c;
}

static void free_loaded(struct loaded *loaded)
{
    arena_free(&loaded->arena); /* wipes all of it, so the secrets too */
    free(loaded);
}

void config_free(struct config *cfg)
{
    if (!cfg)
        return;
    struct loaded *loaded = loaded_of(cfg), *original = loaded->original;
    original->copies--;
    if (loaded != original)
        free_loaded(loaded);
    if (original->copies == 0)
        free_loaded(original);
}

const char *config_restart_needed(const struct config *running, const struct config *next)
{
    const char *name = NULL;

    for (size_t i = 0; i < global_options.count && !name; i++) {
        const struct config_option *o = &global_options.rows[i];
        struct strbuf a = STRBUF_INIT, b = STRBUF_INIT;
        if (!(o->flags & OPTION_RESTART))
            continue;
        option_write_value(o, running, &a);
        option_write_value(o, next, &b);
        if (strcmp(strbuf_str(&a), strbuf_str(&b)) != 0)
            name = o->name;
        strbuf_free(&a);
        strbuf_free(&b);
    }
    return name;
}
