/*
 * loader.h - what the parts of config_load() share.
 */
#ifndef CONFIG_LOADER_H
#define CONFIG_LOADER_H
#include "config/arena.h"
#include "config/config.h"
#include "config/options.h"
#include "config/report.h"
#include <sys/stat.h>

/* A file that a secret was read from, as it was then. */
struct watched_file {
    const char *path;
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime;
};

#define WATCHED_MAX 8

/* What config_load() really returns a pointer into. */
struct loaded {
    struct config config; /* first: a struct config * is a struct loaded * */
    struct arena arena;
    char *api_key_file;
    char *ingest_secret_file;
    struct watched_file watched[WATCHED_MAX];
    size_t watched_count;
    struct loaded *original; /* what this is a copy of, which lives as long; itself, mostly */
    unsigned copies;         /* of an original: how many live, itself among them */
};

struct route_draft {
    struct route route; /* first */
    struct status_set except_status;
    int64_t reject_status;
};

/* A rule as it was written; which of these belong together is rules.c's business. */
struct rule_draft {
    char *name;
    char *header;
    char *json_pointer;
    char *sse_event;
    bool exists;
    char *text; /* "equals" of a header */
    struct scalar equals;
    char *contains;
};

struct source_draft {
    char *json_pointer;
    char *header;
};

enum layer { LAYER_DEFAULT, LAYER_FILE, LAYER_ENV, LAYER_FLAG };

/* Who had the last word on an option. */
struct origin {
    enum layer layer;
    bool bad; /* somebody gave a value that was refused */
    struct place_of at;
};

struct loader {
    struct loaded *loaded;
    struct arena *arena; /* the loaded's */
    struct report report;
    enum layer layer;       /* being read now */
    struct origin *origins; /* by row of global_options; owned by load.c */
};

static inline const cJSON *child_of(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static inline struct place_of at_node(const cJSON *node)
{
    return (struct place_of){ .node = node };
}

static inline struct place_of at_key(const cJSON *node)
{
    return (struct place_of){ .node = node, .key = true };
}

/* The object's child, or the object while it has none of that name. */
static inline struct place_of at_child(const cJSON *object, const char *key)
{
    const cJSON *node = child_of(object, key);
    return at_node(node ? node : object);
}

/* apply.c: values into structures, from text and from the file's nodes.  Errors are
 * reported; -1 only tells that there was one. */
void apply_defaults(struct loader *l, const struct option_table *t, void *base);
int apply_text(struct loader *l, const struct option_table *t, const struct config_option *o,
               void *base, const char *text, struct place_of at, bool append);
void apply_object(struct loader *l, const struct option_table *t, void *base, const cJSON *node);
struct origin *origin_of(struct loader *l, const char *name); /* of a global option */

/* not_yet.c: the value, its items joined by commas, belongs to a later version. */
bool not_yet_refuse(struct loader *l, const struct option_table *t, const struct config_option *o,
                    const char *joined, struct place_of at);

/* metrics.c */
void metrics_apply(struct loader *l, struct route *r, const cJSON *object);

/* rules.c: "failure.headers" and "failure.body"; replaces what a layer below said. */
void rules_apply(struct loader *l, const struct config_option *o, void *base, const cJSON *array);
/* The reserved and the doubled names of a route's rules. */
void rules_check(struct loader *l, const struct route *r, const cJSON *route);

/* environment.c */
void environment_apply(struct loader *l, char **envp);
void flags_apply(struct loader *l, char **argv, int argc);
/* Why a name (as in the file: "control.api_key") may not hold its secret; NULL: it is none. */
const char *secret_refusal(const char *name);

/* secrets.c: project id, keys and base URL from their variables and files. */
void secrets_apply(struct loader *l, char **envp);

/* Notices later changes of a file that has just been read. */
void watch_file(struct loader *l, const char *path, const struct stat *st);

/* users.c: access.auth_file. */
void users_apply(struct loader *l);

/* routes.c, embedded.c, cross.c */
void embedded_apply(struct loader *l, const cJSON *root);
void routes_apply(struct loader *l, const cJSON *root);
void cross_check(struct loader *l);        /* before routes_apply */
void cross_check_routes(struct loader *l); /* after it */

/* set.c: replaces the value of that name, compared with case, or adds one */
void map_set(struct arena *a, struct name_value_list *m, char *name, char *value);

#endif
