#include "config/options.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/value.h"
#include <ctype.h>
#include <string.h>

#define SECOND   1000
#define MINUTE   (60 * SECOND)
#define HOUR     (60 * MINUTE)
#define DAY      (24 * INT64_C(3600000))
#define KIB      INT64_C(1024)
#define MIB      (1024 * KIB)
#define GIB      (1024 * MIB)
#define MILLION  1000000
#define ANY_SIZE INT64_MAX

#define GLOBAL(field) offsetof(struct loaded, config.field)
#define ROUTE(field)  offsetof(struct route_draft, route.field)
#define DEF(field)    offsetof(struct breaker_def, field)
#define RULE(field)   offsetof(struct rule_draft, field)

static const struct config_option global_rows[] = {
    { "listen", TYPE_LISTEN, OPTION_RESTART, 0, 64, .def = "127.0.0.1:3128,[::1]:3128",
      .offset = GLOBAL(listen),
      .help = "Where clients reach the proxy; beyond loopback it needs allow_clients." },
    { "transparent_listen", TYPE_LISTEN, OPTION_RESTART, 0, 64, .def = "",
      .offset = GLOBAL(transparent_listen), .help = "Where redirected connections arrive." },
    { "telemetry_listen", TYPE_LISTEN, OPTION_RESTART | OPTION_OFF, 0, 64, .def = "127.0.0.1:3130",
      .offset = GLOBAL(telemetry_listen), .help = "Health, metrics and status, read-only." },
    { "admin_listen", TYPE_LISTEN, OPTION_RESTART | OPTION_OFF, 0, 64, .def = "127.0.0.1:3131",
      .offset = GLOBAL(admin_listen),
      .help = "Operations that change the running proxy; loopback only." },
    { "allow_clients", TYPE_CIDRS, .def = "127.0.0.0/8,::1/128", .offset = GLOBAL(allow_clients),
      .help = "Networks whose clients may use the explicit listeners." },
    { "workers", TYPE_INT, OPTION_RESTART, 0, 256, .def = "0", .offset = GLOBAL(workers),
      .help = "Threads that carry traffic; 0: the usable CPUs, at most 4." },
    { "mode", TYPE_ENUM, .choices = "enforce|shadow|off", .def = "enforce", .offset = GLOBAL(mode),
      .help = "Refuse (enforce), only count refusals (shadow), or neither gate nor sample (off)." },
    { "fail_mode", TYPE_ENUM, .choices = "open|closed", .def = "open", .offset = GLOBAL(fail_mode),
      .help = "What becomes of requests while breaker state is unknown or stale." },
    { "via", TYPE_STRING, OPTION_NULL, .offset = GLOBAL(via), .check = check_via,
      .help = "A name to add to Via; none by default, as some servers stop compressing for it." },
    { "upgrades", TYPE_STRINGS, .def = "websocket", .offset = GLOBAL(upgrades),
      .check = check_token, .help = "Upgrade protocols that are relayed." },
    { "api_key_file", TYPE_STRING, OPTION_NULL, .offset = offsetof(struct loaded, api_key_file),
      .check = check_plain,
      .help = "File that holds the project key, instead of TRIPSWITCH_API_KEY." },
    { "ingest_secret_file", TYPE_STRING, OPTION_NULL,
      .offset = offsetof(struct loaded, ingest_secret_file), .check = check_plain,
      .help = "File that holds the ingest secret, instead of TRIPSWITCH_INGEST_SECRET." },

    { "control.url", TYPE_CONTROL_URL, OPTION_NULL | OPTION_RESTART, .offset = 0,
      .check = check_control_url,
      .help = "The control plane: https://api.tripswitch.dev once a project is configured, else "
              "\"embedded\"." },
    { "control.project_id", TYPE_STRING, OPTION_NULL, .offset = GLOBAL(control.project_id),
      .check = check_project_id, .help = "The project; also TRIPSWITCH_PROJECT_ID." },
    { "control.ca_file", TYPE_STRING, OPTION_NULL, .offset = GLOBAL(control.ca_file),
      .check = check_readable,
      .help = "Certificates to trust for the control plane instead of the system's." },
    { "control.proxy", TYPE_STRING, OPTION_NULL | OPTION_SECRET, .offset = GLOBAL(control.proxy),
      .check = check_proxy_url,
      .help = "Proxy on the way to the control plane; HTTPS_PROXY is ignored." },
    { "control.state_source", TYPE_ENUM, .choices = "stream|poll|auto", .def = "auto",
      .offset = GLOBAL(control.state_source),
      .help = "How breaker state arrives; auto polls while the stream does not work." },
    { "control.poll_interval", TYPE_DURATION, 0, SECOND, HOUR, .def = "30s",
      .offset = GLOBAL(control.poll_interval_ms), .help = "How often state is polled when it is." },
    { "control.startup_sync_timeout", TYPE_DURATION, 0, 0, 10 * MINUTE, .def = "5s",
      .offset = GLOBAL(control.startup_sync_timeout_ms),
      .help = "How long start-up waits for the first state." },
    { "control.require_sync", TYPE_BOOL, .def = "false", .offset = GLOBAL(control.require_sync),
      .help = "Exit with 69 if the first state does not arrive in that time." },
    { "control.state_max_age", TYPE_DURATION, OPTION_OFF, 0, 30 * DAY, .def = "60s",
      .offset = GLOBAL(control.state_max_age_ms),
      .help =
          "State is stale this long after the stream was lost, unless polls go well; off: never, "
          "0s: at once." },
    { "control.metadata_interval", TYPE_DURATION, 0, SECOND, DAY, .def = "30s",
      .offset = GLOBAL(control.metadata_interval_ms),
      .help = "How often metadata is polled, if a route selects by it or states are polled." },

    { "samples.flush_interval", TYPE_DURATION, 0, 10, HOUR, .def = "15s",
      .offset = GLOBAL(samples.flush_interval_ms),
      .help = "A batch leaves when its oldest sample is this old; embedded: 200ms." },
    { "samples.urgent_interval", TYPE_DURATION, 0, 10, HOUR, .def = "1s",
      .offset = GLOBAL(samples.urgent_interval_ms),
      .help = "A batch with a failure leaves this soon; embedded: 200ms." },
    { "samples.batch", TYPE_INT, 0, 1, 1000, .def = "500", .offset = GLOBAL(samples.batch),
      .help = "A batch leaves when it holds this many samples." },
    { "samples.buffer", TYPE_INT, 0, 1, MILLION, .def = "10000", .offset = GLOBAL(samples.buffer),
      .help = "Samples kept while none can be sent; beyond it the oldest is dropped." },
    { "samples.max_age", TYPE_DURATION, 0, SECOND, HOUR, .def = "2m",
      .offset = GLOBAL(samples.max_age_ms), .help = "Samples older than this are dropped." },
    { "samples.max_posts_per_second", TYPE_INT, OPTION_OFF, 1, 1000, .def = "10",
      .offset = GLOBAL(samples.max_posts_per_second),
      .help = "Batches grow rather than leave more often; embedded: off." },
    { "samples.trace_header", TYPE_STRING, OPTION_NULL, .def = "traceparent",
      .offset = GLOBAL(samples.trace_header), .check = check_token,
      .help = "Request header that names the trace of a sample." },
    { "samples.gzip", TYPE_BOOL, .def = "true", .offset = GLOBAL(samples.gzip),
      .help = "Compress batches; embedded: false." },

    { "global_tags", TYPE_MAP, 0, 0, MAX_TAGS, .offset = GLOBAL(global_tags), .check = check_tag,
      .check_name = check_tag_name, .help = "Tags of every sample." },

    { "timeouts.connect", TYPE_DURATION, 0, 1, HOUR, .def = "10s",
      .offset = GLOBAL(timeouts.connect_ms),
      .help = "Until a connection to the upstream stands, all its addresses together." },
    { "timeouts.tls", TYPE_DURATION, 0, 1, HOUR, .def = "10s", .offset = GLOBAL(timeouts.tls_ms),
      .help = "Until TLS with the upstream is set up." },
    { "timeouts.first_byte", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY, .def = "off",
      .offset = GLOBAL(timeouts.first_byte_ms),
      .help = "Until the first byte of the response; cuts the request." },
    { "timeouts.idle", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY, .def = "off",
      .offset = GLOBAL(timeouts.idle_ms), .help = "Between two bytes of an exchange; cuts it." },
    { "timeouts.total", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY, .def = "off",
      .offset = GLOBAL(timeouts.total_ms), .help = "For a whole exchange; cuts it." },
    { "timeouts.client_header", TYPE_DURATION, 0, 1, HOUR, .def = "10s",
      .offset = GLOBAL(timeouts.client_header_ms),
      .help = "From a request's first byte to the end of its head." },
    { "timeouts.client_idle", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY, .def = "1h",
      .offset = GLOBAL(timeouts.client_idle_ms),
      .help = "A client connection without a request is closed." },
    { "timeouts.upstream_idle", TYPE_DURATION, OPTION_OFF, 0, 30 * DAY, .def = "4s",
      .offset = GLOBAL(timeouts.upstream_idle_ms),
      .help = "An unused upstream connection is closed; 0s: none is kept." },
    { "timeouts.tunnel_idle", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY, .def = "off",
      .offset = GLOBAL(timeouts.tunnel_idle_ms),
      .help = "A tunnel without a byte in either direction is closed." },
    { "timeouts.keepalive", TYPE_DURATION, OPTION_OFF, SECOND, 9 * HOUR, .def = "60s",
      .offset = GLOBAL(timeouts.keepalive_ms),
      .help = "TCP keepalive interval of idle connections, clients' and upstreams'; "
              "those that stand keep theirs." },

    { "limits.connections", TYPE_INT, 0, 1, MILLION, .def = "4096",
      .offset = GLOBAL(limits.connections), .help = "Client connections at one time." },
    { "limits.connections_per_client", TYPE_INT, OPTION_OFF, 1, MILLION, .def = "off",
      .offset = GLOBAL(limits.connections_per_client),
      .help = "Connections from one client address at one time." },
    { "limits.tunnels", TYPE_INT, 0, 0, MILLION, .def = "4096", .offset = GLOBAL(limits.tunnels),
      .help = "Tunnels at one time." },
    { "limits.header_bytes", TYPE_SIZE, 0, KIB, MIB, .def = "64KiB",
      .offset = GLOBAL(limits.header_bytes), .help = "Size of one request or response head." },
    { "limits.header_fields", TYPE_INT, 0, 1, 1024, .def = "128",
      .offset = GLOBAL(limits.header_fields), .help = "Fields in one request or response head." },
    { "limits.buffer", TYPE_SIZE, OPTION_RESTART, 16 * KIB, 16 * MIB, .def = "64KiB",
      .offset = GLOBAL(limits.buffer), .help = "Buffered bytes of one exchange in one direction." },
    { "limits.buffered_total", TYPE_SIZE, 0, MIB, 64 * GIB, .def = "32MiB",
      .offset = GLOBAL(limits.buffered_total),
      .help = "Buffered bytes of all exchanges together." },
    { "limits.min_body_rate", TYPE_SIZE, OPTION_OFF, 1, GIB, .def = "off",
      .offset = GLOBAL(limits.min_body_rate),
      .help = "A body that comes slower, in bytes per second over 10 s, is cut." },
    { "limits.upstream_idle", TYPE_INT, 0, 0, 100000, .def = "256",
      .offset = GLOBAL(limits.upstream_idle),
      .help = "Unused upstream connections kept per worker." },
    { "limits.dns_queue", TYPE_INT, 0, 1, MILLION, .def = "1000",
      .offset = GLOBAL(limits.dns_queue),
      .help = "Exchanges of one worker that wait for names at one time." },
    { "limits.auto_breakers", TYPE_INT, 0, 0, 60000, .def = "1000",
      .offset = GLOBAL(limits.auto_breakers),
      .help = "Breakers that the embedded control plane makes for hosts." },

    { "dns.min_ttl", TYPE_DURATION, 0, 0, HOUR, .def = "1s", .offset = GLOBAL(dns.min_ttl_ms),
      .help = "Answers are kept at least this long." },
    { "dns.max_ttl", TYPE_DURATION, 0, 0, DAY, .def = "60s", .offset = GLOBAL(dns.max_ttl_ms),
      .help = "Answers are kept at most this long." },
    { "dns.stale", TYPE_DURATION, 0, 0, DAY, .def = "60s", .offset = GLOBAL(dns.stale_ms),
      .help = "An expired answer still serves this long if no new one can be had." },
    { "dns.timeout", TYPE_DURATION, 0, 10, MINUTE, .def = "5s", .offset = GLOBAL(dns.timeout_ms),
      .help = "Until a name is resolved." },
    { "dns.servers", TYPE_STRINGS, 0, 0, 8, .def = "", .offset = GLOBAL(dns.servers),
      .check = check_dns_server, .help = "Name servers instead of those in /etc/resolv.conf." },

    { "access.connect_ports", TYPE_PORTS, .offset = GLOBAL(access.connect_ports),
      .help = "Ports that CONNECT may reach: any while only loopback may connect, else 443." },
    { "access.deny_destinations", TYPE_CIDRS, .def = "169.254.0.0/16,fe80::/10",
      .offset = GLOBAL(access.deny_destinations),
      .help = "Networks that explicit requests never reach, checked after resolution." },
    { "access.auth_file", TYPE_STRING, OPTION_NULL, .offset = GLOBAL(access.auth_file),
      .check = check_plain,
      .help = "Who may use the explicit listeners: lines of name:SHA-256 of a random token." },

    { "drain.min", TYPE_DURATION, 0, 0, HOUR, .def = "5s", .offset = GLOBAL(drain.min_ms),
      .help = "After SIGTERM, serve at least this long." },
    { "drain.idle", TYPE_DURATION, 0, 0, HOUR, .def = "1s", .offset = GLOBAL(drain.idle_ms),
      .help = "Then end once nothing has happened for this long." },
    { "drain.max", TYPE_DURATION, 0, 0, DAY, .def = "25s", .offset = GLOBAL(drain.max_ms),
      .help = "End in any case after this long." },

    { "access_log.mode", TYPE_ENUM, .choices = "off|errors|all", .def = "errors",
      .offset = GLOBAL(access_log.mode), .help = "Which exchanges get a line." },
    { "access_log.path", TYPE_STRING, .def = "stdout", .offset = GLOBAL(access_log.path),
      .check = check_plain, .help = "Where the lines go: stdout, stderr or a file." },
    { "log_level", TYPE_WORD, .choices = "debug|info|warning|error", .def = "info",
      .offset = GLOBAL(log_level), .help = "The least important messages to write." },
    { "log_format", TYPE_WORD, .choices = "auto|text|json", .def = "auto",
      .offset = GLOBAL(log_format), .help = "Form of the messages; auto: text on a terminal." },

    { "bypass", TYPE_STRINGS, .def = "", .offset = GLOBAL(bypass), .check = check_bypass,
      .help = "Hosts that are forwarded ungated." },

    { "defaults", TYPE_OBJECT, .offset = NOWHERE,
      .help = "What every route says unless it says otherwise." },
    { "routes", TYPE_OBJECTS, .offset = NOWHERE,
      .help = "Hosts, and the breakers that protect them; the first match wins." },
    { "embedded.auto_breaker", TYPE_OBJECT, .offset = NOWHERE,
      .help = "The breaker that each host gets when nobody defined one." },
    { "embedded.breakers", TYPE_OBJECTS, .offset = NOWHERE,
      .help = "Breakers of the embedded control plane." },
    { "embedded.routers", TYPE_OBJECTS, .offset = NOWHERE,
      .help = "Routers of the embedded control plane." },
    { "embedded.state_file", TYPE_STRING, OPTION_NULL, .offset = GLOBAL(embedded.state_file),
      .check = check_file_to_write, .help = "Where breaker state outlives a restart." },
};

static const struct config_option route_rows[] = {
    { "name", TYPE_STRING, .offset = ROUTE(name), .check = check_name,
      .help = "Name in logs and metrics; route-N if there is none." },
    { "match.hosts", TYPE_STRINGS, .offset = ROUTE(match.hosts), .check = check_host,
      .help = "Names, *.suffixes or addresses; none: every host." },
    { "match.ports", TYPE_PORTS, .offset = ROUTE(match.ports), .help = "Ports; none: every port." },
    { "match.methods", TYPE_STRINGS, .offset = ROUTE(match.methods), .check = check_token,
      .help = "Methods, with case." },
    { "match.paths", TYPE_STRINGS, .offset = ROUTE(match.paths), .check = check_path,
      .help = "Raw paths up to the query; a * only at the end." },
    { "match.headers", TYPE_MAP, 0, 0, 32, .offset = ROUTE(match.headers),
      .check = check_field_value, .check_name = check_token,
      .help = "Request headers and the values they must have." },
    { "breakers", TYPE_STRINGS, 0, 0, MAX_BREAKERS, .offset = ROUTE(breakers),
      .selector = ROUTE(breakers_metadata), .check = check_host_name,
      .help = "Breakers that gate the route; {host} stands for the upstream host." },
    { "router", TYPE_STRING, OPTION_NULL, .offset = ROUTE(router),
      .selector = ROUTE(router_metadata), .check = check_host_name,
      .help = "Router that samples go to; none: no samples." },
    { "metrics", TYPE_METRICS, .offset = 0,
      .help = "Metrics of an attempt: latency, first_byte, connect, request_bytes, response_bytes, "
              "a number, or an object that names a value of the response." },
    { "tags", TYPE_MAP, 0, 0, MAX_TAGS, .offset = ROUTE(tags), .check = check_tag,
      .check_name = check_tag_name,
      .help =
          "Tags of samples; {status} {method} {host} {outcome} {rule} {tier} {route} {instance} "
          "are filled in." },
    { "failure.status", TYPE_STATUSES, .def = "5xx", .offset = ROUTE(failure.status),
      .help = "Statuses that are failures." },
    { "failure.except_status", TYPE_STATUSES, .def = "",
      .offset = offsetof(struct route_draft, except_status), .help = "Statuses that are not." },
    { "failure.on", TYPE_OUTCOMES, .def = "connect,dns,tls,timeout,reset,protocol",
      .offset = ROUTE(failure.on), .help = "Transport errors that are failures." },
    { "failure.no_response_after", TYPE_DURATION, OPTION_OFF, 1, DAY, .def = "30s",
      .offset = ROUTE(failure.no_response_after_ms),
      .help = "No response byte for this long is a failure; nothing is cut." },
    { "failure.slower_than", TYPE_DURATION, OPTION_OFF, 1, DAY, .def = "off",
      .offset = ROUTE(failure.slower_than_ms),
      .help = "A response that took longer is a failure; nothing is cut." },
    { "failure.client_abort_after", TYPE_DURATION, OPTION_OFF, 0, DAY, .def = "2s",
      .offset = ROUTE(failure.client_abort_after_ms),
      .help = "A client that gives up after this long without a response byte is a failure." },
    { "failure.body_limit", TYPE_SIZE, 0, 0, MIB, .def = "64KiB",
      .offset = ROUTE(failure.body_limit),
      .help = "How much of a body, decompressed, the rules and metrics look at." },
    { "failure.headers", TYPE_HEAD_RULES, 0, 0, MAX_RULES, .offset = ROUTE(failure.headers),
      .help = "Response headers that are failures." },
    { "failure.body", TYPE_BODY_RULES, 0, 0, MAX_RULES, .offset = ROUTE(failure.body),
      .help = "Response bodies that are failures." },
    { "neutral.status", TYPE_STATUSES, .def = "", .offset = ROUTE(neutral),
      .help = "Statuses that make no sample." },
    { "half_open.no_response_after", TYPE_DURATION, OPTION_OFF, 1, DAY, .def = "5s",
      .offset = ROUTE(half_open.no_response_after_ms),
      .help = "As failure.no_response_after, while a breaker is half-open." },
    { "half_open.timeout", TYPE_DURATION, OPTION_OFF, 1, DAY, .def = "off",
      .offset = ROUTE(half_open.timeout_ms),
      .help = "Cuts a half-open attempt that has not been answered and judged by then." },
    { "half_open.max_concurrent", TYPE_INT, OPTION_OFF, 1, MAX_PROBES, .def = "off",
      .offset = ROUTE(half_open.max_concurrent),
      .help = "Half-open attempts of a breaker at one time." },
    { "half_open.max_per_second", TYPE_INT, OPTION_OFF, 1, MILLION, .def = "off",
      .offset = ROUTE(half_open.max_per_second),
      .help = "Half-open attempts of a breaker per second, evenly spaced." },
    { "half_open.eligible.methods", TYPE_STRINGS, .def = "",
      .offset = ROUTE(half_open.eligible.methods), .check = check_token,
      .help = "Methods that may probe, CONNECT for tunnels; none: every method." },
    { "half_open.eligible.max_body", TYPE_SIZE, OPTION_OFF, 0, GIB, .def = "off",
      .offset = ROUTE(half_open.eligible.max_body),
      .help = "Largest request body that may probe; one of unknown size may not." },
    { "half_open.fleet.size", TYPE_INT, 0, 1, MILLION, .def = "1",
      .offset = ROUTE(half_open.fleet.size), .help = "Proxies that share fleet.max_per_second." },
    { "half_open.fleet.max_per_second", TYPE_INT, OPTION_OFF, 1, MILLION, .def = "off",
      .offset = ROUTE(half_open.fleet.max_per_second),
      .help = "Half-open attempts per second of them all; each takes its share." },
    { "reject.status", TYPE_INT, 0, 400, 599, .def = "503",
      .offset = offsetof(struct route_draft, reject_status),
      .help = "Status of a refusal; not 401, 407, 408, 421 or 426." },
    { "reject.retry_after", TYPE_DURATION, OPTION_OFF, SECOND, DAY, .def = "off",
      .offset = ROUTE(reject.retry_after_ms), .help = "Retry-After of a refusal." },
    { "reject.content_type", TYPE_STRING, OPTION_NULL, .offset = ROUTE(reject.content_type),
      .check = check_field_value, .help = "Content type of reject.body; plain text if none." },
    { "reject.body", TYPE_STRING, OPTION_NULL, .offset = ROUTE(reject.body),
      .check = check_reject_body,
      .help = "Body of a refusal, at most 64 KiB; none: a problem document (RFC 9457)." },
    { "reject.headers", TYPE_MAP, 0, 0, 32, .offset = ROUTE(reject.headers),
      .check = check_field_value, .check_name = check_reject_header,
      .help = "Further headers of a refusal." },
    { "tunnels_on_open", TYPE_ENUM, .choices = "keep|close_idle|close", .def = "close_idle",
      .offset = ROUTE(tunnels_on_open),
      .help = "What becomes of standing tunnels when a breaker opens." },
    { "timeouts.connect", TYPE_DURATION, 0, 1, HOUR, .offset = ROUTE(timeouts.connect_ms),
      .help = "As the global one." },
    { "timeouts.tls", TYPE_DURATION, 0, 1, HOUR, .offset = ROUTE(timeouts.tls_ms),
      .help = "As the global one." },
    { "timeouts.first_byte", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY,
      .offset = ROUTE(timeouts.first_byte_ms), .help = "As the global one." },
    { "timeouts.idle", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY, .offset = ROUTE(timeouts.idle_ms),
      .help = "As the global one." },
    { "timeouts.total", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY, .offset = ROUTE(timeouts.total_ms),
      .help = "As the global one." },
    { "timeouts.upstream_idle", TYPE_DURATION, OPTION_OFF, 0, 30 * DAY,
      .offset = ROUTE(timeouts.upstream_idle_ms), .help = "As the global one." },
    { "timeouts.tunnel_idle", TYPE_DURATION, OPTION_OFF, 1, 30 * DAY,
      .offset = ROUTE(timeouts.tunnel_idle_ms), .help = "As the global one." },
    { "timeouts.keepalive", TYPE_DURATION, OPTION_OFF, SECOND, 9 * HOUR,
      .offset = ROUTE(timeouts.keepalive_ms), .help = "As the global one." },
    { "mode", TYPE_ENUM, .choices = "enforce|shadow|off", .offset = ROUTE(mode),
      .help = "As the global one." },
    { "fail_mode", TYPE_ENUM, .choices = "open|closed", .offset = ROUTE(fail_mode),
      .help = "As the global one." },
    { "tls", TYPE_ENUM, .choices = "tunnel|originate|intercept", .def = "tunnel", .offset = NOWHERE,
      .help = "How TLS is treated." },
};

static const struct config_option breaker_rows[] = {
    { "name", TYPE_STRING, .offset = DEF(name), .check = check_host_name,
      .help = "What routes call it." },
    { "metric", TYPE_STRING, .offset = DEF(metric), .check = check_plain,
      .help = "Metric whose samples it takes." },
    { "kind", TYPE_WORD, .choices = "error_rate|consecutive_failures",
      .def = "consecutive_failures", .offset = DEF(kind), .help = "What is made of the samples." },
    { "op", TYPE_WORD, .choices = "gt|gte|lt|lte", .def = "gte", .offset = DEF(op),
      .help = "Compares that with threshold; true is unhealthy." },
    { "threshold", TYPE_NUMBER, 0, 0, 1000000000, .def = "5", .offset = DEF(threshold),
      .help = "Of an error_rate 0 to 1, of consecutive_failures a count." },
    { "window_ms", TYPE_INT, 0, 100, DAY, .def = "60000", .offset = DEF(window_ms),
      .help = "Samples older than this do not count." },
    { "min_count", TYPE_INT, 0, 0, MILLION, .def = "1", .offset = DEF(min_count),
      .help = "Fewer samples than this say nothing." },
    { "eval_interval_ms", TYPE_INT, 0, 10, HOUR, .def = "500", .offset = DEF(eval_interval_ms),
      .help = "How often it is evaluated." },
    { "min_state_duration_ms", TYPE_INT, 0, 0, DAY, .def = "0",
      .offset = DEF(min_state_duration_ms), .help = "It stays in a state at least this long." },
    { "cooldown_ms", TYPE_INT, 0, 0, DAY, .def = "5000", .offset = DEF(cooldown_ms),
      .help = "From open to half-open." },
    { "half_open_backoff_enabled", TYPE_BOOL, .def = "true",
      .offset = DEF(half_open_backoff_enabled), .help = "Failed recoveries double the cooldown." },
    { "half_open_backoff_cap_ms", TYPE_INT, 0, 0, DAY, .def = "60000",
      .offset = DEF(half_open_backoff_cap_ms), .help = "Up to this." },
    { "half_open_indeterminate_policy", TYPE_WORD, .choices = "optimistic|conservative|pessimistic",
      .def = "conservative", .offset = DEF(half_open_indeterminate_policy),
      .help = "Half-open with too few samples: go on, wait, or open again." },
    { "recovery_allow_rate_ramp_steps", TYPE_INT, 0, 0, 100, .def = "3",
      .offset = DEF(recovery_allow_rate_ramp_steps),
      .help = "Steps of allow_rate from half-open to closed." },
    { "metadata", TYPE_MAP, 0, 0, 20, .offset = DEF(metadata), .check = check_field_value,
      .check_name = check_plain, .help = "What routes may select it by." },
};

static const struct config_option router_rows[] = {
    { "id", TYPE_STRING, .offset = offsetof(struct router_def, id), .check = check_host_name,
      .help = "What routes and samples name." },
    { "name", TYPE_STRING, .offset = offsetof(struct router_def, name), .check = check_plain,
      .help = "For people; the id if there is none." },
    { "breakers", TYPE_STRINGS, .offset = offsetof(struct router_def, breakers),
      .check = check_host_name, .help = "Breakers that its samples reach." },
    { "metadata", TYPE_MAP, 0, 0, 20, .offset = offsetof(struct router_def, metadata),
      .check = check_field_value, .check_name = check_plain,
      .help = "What routes may select it by." },
};

static const struct config_option header_rule_rows[] = {
    { "name", TYPE_STRING, .offset = RULE(name), .check = check_name,
      .help = "Name in logs, tags and metrics; headers-N if there is none." },
    { "header", TYPE_STRING, .offset = RULE(header), .check = check_token,
      .help = "The response header to look at." },
    { "exists", TYPE_BOOL, .offset = RULE(exists), .help = "True: the header is there." },
    { "equals", TYPE_STRING, .offset = RULE(text), .check = check_field_value,
      .help = "The whole value, with case." },
    { "contains", TYPE_STRING, .offset = RULE(contains), .check = check_rule_text,
      .help = "A part of the value, with case." },
};

static const struct config_option body_rule_rows[] = {
    { "name", TYPE_STRING, .offset = RULE(name), .check = check_name,
      .help = "Name in logs, tags and metrics; body-N if there is none." },
    { "json_pointer", TYPE_STRING, .offset = RULE(json_pointer), .check = check_pointer,
      .help = "The value to look at, by RFC 6901." },
    { "exists", TYPE_BOOL, .offset = RULE(exists),
      .help = "True: the value is there and is not null." },
    { "equals", TYPE_SCALAR, .offset = RULE(equals),
      .help = "What the value must be: text, number, true, false or null." },
    { "contains", TYPE_STRING, .offset = RULE(contains), .check = check_rule_text,
      .help = "A part of the value; without json_pointer, of the body." },
    { "sse_event", TYPE_STRING, .offset = RULE(sse_event), .check = check_event_name,
      .help = "An event of this name in an event stream." },
};

static const struct config_option metric_source_rows[] = {
    { "json_pointer", TYPE_STRING, .offset = offsetof(struct source_draft, json_pointer),
      .check = check_pointer, .help = "A number in the body, by RFC 6901." },
    { "header", TYPE_STRING, .offset = offsetof(struct source_draft, header), .check = check_token,
      .help = "A response header that holds a number." },
};

const struct option_table global_options = { global_rows, ARRAY_LEN(global_rows), "" };
const struct option_table route_options = { route_rows, ARRAY_LEN(route_rows), "/routes/0" };
const struct option_table breaker_options = { breaker_rows, ARRAY_LEN(breaker_rows),
                                              "/embedded/breakers/0" };
const struct option_table router_options = { router_rows, ARRAY_LEN(router_rows),
                                             "/embedded/routers/0" };
const struct option_table header_rule_options = { header_rule_rows, ARRAY_LEN(header_rule_rows),
                                                  "/routes/0/failure/headers/0" };
const struct option_table body_rule_options = { body_rule_rows, ARRAY_LEN(body_rule_rows),
                                                "/routes/0/failure/body/0" };
const struct option_table metric_source_options = { metric_source_rows,
                                                    ARRAY_LEN(metric_source_rows),
                                                    "/routes/0/metrics/name" };

const struct config_option *option_find(const struct option_table *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->rows[i].name, name) == 0)
            return &t->rows[i];
    return NULL;
}

bool option_is_list(const struct config_option *o)
{
    return o->type >= TYPE_STRINGS && o->type <= TYPE_OUTCOMES;
}

bool option_is_embedded(const struct config_option *o)
{
    return strncmp(o->name, "embedded.", 9) == 0;
}

bool option_is_text(const struct config_option *o)
{
    return o->type < TYPE_MAP && !option_is_embedded(o);
}

void option_flag_name(const struct config_option *o, struct strbuf *out)
{
    strbuf_adds(out, "--");
    for (const char *p = o->name; *p; p++)
        strbuf_addc(out, *p == '.' || *p == '_' ? '-' : *p);
}

void option_env_name(const struct config_option *o, struct strbuf *out)
{
    strbuf_adds(out, "TRIPSWITCH_PROXY_");
    for (const char *p = o->name; *p; p++)
        strbuf_addc(out, *p == '.' ? '_' : (char)toupper((unsigned char)*p));
}
