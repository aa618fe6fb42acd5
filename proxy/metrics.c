#include "proxy/metrics.h"

#include "proxy/proxy.h"
#include "proxy/worker.h"

const int64_t histogram_bounds_us[HISTOGRAM_BUCKETS] = {
    5000,   10000,  25000,   50000,   75000,   100000,  250000,
    500000, 750000, 1000000, 2500000, 5000000, 7500000, 10000000,
};

void histogram_observe(struct histogram *h, int64_t us)
{
    unsigned i = 0;
    while (i < HISTOGRAM_BUCKETS && us > histogram_bounds_us[i])
        i++;
    count_add(&h->buckets[i], 1);
    count_add(&h->sum_us, us > 0 ? (uint64_t)us : 0);
}

const char *traffic_mode_name(enum traffic_mode m)
{
    switch (m) {
    case TRAFFIC_HTTP:
        return "http";
    case TRAFFIC_CONNECT:
        return "connect";
    case TRAFFIC_TRANSPARENT:
        return "transparent";
    case TRAFFIC_INTERCEPT:
        return "intercept";
    case TRAFFIC_MODES:
        break;
    }
    return "?";
}

const char *attempt_tier_name(enum attempt_tier t)
{
    switch (t) {
    case TIER_HTTP:
        return "http";
    case TIER_OPAQUE:
        return "opaque";
    case TIER_COUNT:
        break;
    }
    return "?";
}

const char *request_result_name(enum request_result r)
{
    switch (r) {
    case RESULT_FORWARDED:
        return "forwarded";
    case RESULT_REJECTED:
        return "rejected";
    case RESULT_THROTTLED:
        return "throttled";
    case RESULT_SHADOW_REJECTED:
        return "shadow_rejected";
    case RESULT_BYPASSED:
        return "bypassed";
    case RESULT_FAILED:
        return "failed";
    case RESULT_CLIENT_ABORTED:
        return "client_aborted";
    case RESULT_COUNT:
        break;
    }
    return "?";
}

const char *proxy_error_name(enum proxy_error e)
{
    switch (e) {
    case PERR_NONE:
        return "";
    case PERR_DESTINATION_UNAVAILABLE:
        return "destination_unavailable";
    case PERR_CONNECTION_LIMIT_REACHED:
        return "connection_limit_reached";
    case PERR_DNS_TIMEOUT:
        return "dns_timeout";
    case PERR_DNS_ERROR:
        return "dns_error";
    case PERR_CONNECTION_REFUSED:
        return "connection_refused";
    case PERR_CONNECTION_TIMEOUT:
        return "connection_timeout";
    case PERR_CONNECTION_TERMINATED:
        return "connection_terminated";
    case PERR_TLS_CERTIFICATE_ERROR:
        return "tls_certificate_error";
    case PERR_TLS_PROTOCOL_ERROR:
        return "tls_protocol_error";
    case PERR_TLS_ALERT_RECEIVED:
        return "tls_alert_received";
    case PERR_HTTP_RESPONSE_TIMEOUT:
        return "http_response_timeout";
    case PERR_HTTP_RESPONSE_INCOMPLETE:
        return "http_response_incomplete";
    case PERR_HTTP_PROTOCOL_ERROR:
        return "http_protocol_error";
    case PERR_HTTP_REQUEST_DENIED:
        return "http_request_denied";
    case PERR_DESTINATION_IP_PROHIBITED:
        return "destination_ip_prohibited";
    case PERR_DESTINATION_IP_UNROUTABLE:
        return "destination_ip_unroutable";
    case PERR_PROXY_LOOP_DETECTED:
        return "proxy_loop_detected";
    case PERR_HTTP_REQUEST_ERROR:
        return "http_request_error";
    case PERR_PROXY_INTERNAL_ERROR:
        return "proxy_internal_error";
    case PERR_PROXY_CONFIGURATION_ERROR:
        return "proxy_configuration_error";
    case PERR_COUNT:
        break;
    }
    return "?";
}

const char *shadow_result_name(enum shadow_result r)
{
    switch (r) {
    case SHADOW_RIGHT:
        return "right";
    case SHADOW_WRONG:
        return "wrong";
    case SHADOW_NEUTRAL:
        return "neutral";
    case SHADOW_RESULTS:
        break;
    }
    return "?";
}

const char *decision_name(enum decision d)
{
    switch (d) {
    case DECISION_ALLOW:
        return "allow";
    case DECISION_REJECT:
        return "reject";
    case DECISION_THROTTLE:
        return "throttle";
    case DECISION_SHADOW_REJECT:
        return "shadow_reject";
    case DECISION_OVERRIDE_ALLOW:
        return "override_allow";
    case DECISION_OVERRIDE_REJECT:
        return "override_reject";
    case DECISION_FAIL_OPEN:
        return "fail_open";
    case DECISION_COUNT:
        break;
    }
    return "?";
}

uint64_t counters_sum(const struct proxy *p, size_t where)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < p->worker_count; i++)
        sum += count_get((const counter *)(const void *)((const char *)&p->workers[i]->c + where));
    return sum;
}
