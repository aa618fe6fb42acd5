/*
 * options.h - every key of the configuration, declared once.
 *
 * From these tables come the JSON keys, the flags (dots and underscores become "-"), the
 * names of variables, --help and the JSON Schema.  A row whose type is not text (an
 * object, or a list of them) exists in the file only.
 */
#ifndef CONFIG_OPTIONS_H
#define CONFIG_OPTIONS_H
#include "config/config.h"

struct arena;
struct strbuf;

enum option_type {
    TYPE_BOOL,
    TYPE_INT,         /* int64_t */
    TYPE_NUMBER,      /* double */
    TYPE_DURATION,    /* int64_t, milliseconds */
    TYPE_SIZE,        /* int64_t, bytes */
    TYPE_ENUM,        /* an enum in the order of choices */
    TYPE_WORD,        /* char *, one of choices */
    TYPE_STRING,      /* char * */
    TYPE_CONTROL_URL, /* struct config: control.url and control.embedded */
    TYPE_STRINGS,     /* struct string_list; from here to TYPE_OUTCOMES: lists */
    TYPE_LISTEN,      /* struct listen_list */
    TYPE_CIDRS,       /* struct cidr_list */
    TYPE_PORTS,       /* struct port_list */
    TYPE_STATUSES,    /* struct status_set */
    TYPE_OUTCOMES,    /* uint32_t of BIT(enum outcome) */
    TYPE_MAP,         /* struct name_value_list; from here on: file only */
    TYPE_METRICS,     /* struct route: metrics and metric_count */
    TYPE_HEAD_RULES,  /* struct rule_list: failure.headers */
    TYPE_BODY_RULES,  /* struct rule_list: failure.body */
    TYPE_SCALAR,      /* struct scalar */
    TYPE_OBJECT,      /* read elsewhere */
    TYPE_OBJECTS,     /* list of objects, read elsewhere */
};

enum {
    OPTION_OFF = 1u << 0,     /* "off" is a value: OFF, or an empty list */
    OPTION_NULL = 1u << 1,    /* null is a value; an empty flag means it */
    OPTION_RESTART = 1u << 2, /* a reload cannot apply it */
    OPTION_SECRET = 1u << 3,  /* may hold a password: shown as ***, refused as a flag if it does */
};

#define NOWHERE SIZE_MAX /* offset of an option that is checked and not stored */

struct config_option {
    const char *name; /* path with dots */
    enum option_type type;
    unsigned flags;
    int64_t min, max;    /* inclusive; of a list: how many items (max 0: 1024) */
    const char *choices; /* "open|closed" */
    const char *def;     /* as a flag would say it; NULL: none */
    size_t offset;       /* in the structure of the table */
    size_t selector; /* 0, or the offset of the pairs that { "metadata": {...} } fills instead */
    int (*check)(struct arena *a, char **text, struct strbuf *why); /* of a string or an item */
    int (*check_name)(struct arena *a, char **text, struct strbuf *why); /* TYPE_MAP */
    const char *help;                                                    /* one sentence */
};

struct option_table {
    const struct config_option *rows;
    size_t count;
    const char *pointer; /* where its keys stand: "" or "/routes/0" */
};

extern const struct option_table
    global_options; /* struct loaded, which begins with struct config */
extern const struct option_table
    route_options; /* struct route_draft, which begins with struct route */
extern const struct option_table breaker_options;                        /* struct breaker_def */
extern const struct option_table router_options;                         /* struct router_def */
extern const struct option_table header_rule_options, body_rule_options; /* struct rule_draft */
extern const struct option_table metric_source_options;                  /* struct source_draft */

const struct config_option *option_find(const struct option_table *t, const char *name);
bool option_is_list(const struct config_option *o);
bool option_is_embedded(const struct config_option *o);
bool option_is_text(const struct config_option *o); /* can be a flag or variable */
void option_flag_name(const struct config_option *o, struct strbuf *out);
void option_env_name(const struct config_option *o, struct strbuf *out);

/* The value as JSON; base is the table's structure.  Secrets are written as "***". */
void option_write_value(const struct config_option *o, const void *base, struct strbuf *out);
/* {"section": {"key": value}} of a whole table, without the braces around. */
struct json;
void option_write_all(const struct option_table *t, const void *base, struct json *j);

#endif
