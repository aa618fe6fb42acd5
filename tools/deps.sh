#!/bin/sh
# deps.sh - install the Debian packages that are missing, and only those.
#
#   tools/deps.sh GROUP...           install what is missing (apt-get, with sudo unless root)
#   tools/deps.sh --check GROUP...   only say what is missing; exit 1 if anything is
#
# Groups: build, test, demo, lint, clients, bench, peers (of the benchmarks), micro.
# Each package is looked for by what it gives (a command, a library, a header, a Python
# module), so a machine that has it from elsewhere, or no network, is left alone.
set -eu
PATH=$PATH:/usr/sbin:/sbin # not in everybody's

table() {
    cat <<'TABLE'
build   make                  command:make
build   gcc                   command:gcc
build   binutils              command:ar
build   libc6-dev             header:stdlib.h
build   pkg-config            command:pkg-config
build   libevent-dev          library:libevent_core library:libevent_extra
build   libcurl4-openssl-dev  library:libcurl
build   libcjson-dev          library:libcjson
build   libssl-dev            library:openssl
build   libhttp-parser-dev    header:http_parser.h
build   libc-ares-dev         library:libcares
build   zlib1g-dev            library:zlib
build   ca-certificates       file:/etc/ssl/certs/ca-certificates.crt
test    libcmocka-dev         library:cmocka
test    python3               command:python3
test    python3-yaml          module:yaml
test    binutils              command:readelf
test    curl                  command:curl
test    wget                  command:wget
test    iproute2              command:ip
test    nftables              command:nft
test    iptables              command:iptables-legacy command:iptables-nft
test    strace                command:strace
test    valgrind              command:valgrind header:valgrind/callgrind.h
demo    python3               command:python3
lint    clang                 command:clang
lint    clang-format          command:clang-format
lint    clang-tidy            command:clang-tidy
lint    cppcheck              command:cppcheck
lint    shellcheck            command:shellcheck
lint    python3               command:python3
lint    git                   command:git
clients nodejs                command:node
clients default-jdk-headless  command:javac
clients golang-go             command:go
clients apache2-utils         command:ab
bench   python3               command:python3
bench   util-linux            command:taskset
peers   nginx-light           command:nginx
peers   haproxy               command:haproxy
peers   squid                 command:squid
peers   tinyproxy-bin         command:tinyproxy
peers   trafficserver         command:traffic_server
micro   valgrind              command:valgrind header:valgrind/callgrind.h
TABLE
}

has() {
    case $1 in
    command:*) command -v "${1#*:}" >/dev/null 2>&1 ;;
    library:*) pkg-config --exists "${1#*:}" 2>/dev/null ;;
    header:*) echo "#include <${1#*:}>" | gcc -E -x c - >/dev/null 2>&1 ;;
    module:*) python3 -c "import ${1#*:}" >/dev/null 2>&1 ;;
    file:*) test -e "${1#*:}" ;;
    esac
}

missing() { # GROUP...: the packages, each once
    for group in "$@"; do
        table | while read -r of package probes; do
            [ "$of" = "$group" ] || continue
            for probe in $probes; do
                if ! has "$probe"; then
                    echo "$package"
                    break
                fi
            done
        done
    done | sort -u | tr '\n' ' '
}

check_only=
if [ "${1:-}" = --check ]; then
    check_only=1
    shift
fi
for group in "$@"; do
    if ! table | grep -q "^$group "; then
        echo "deps.sh: no group \"$group\"" >&2
        exit 2
    fi
done

need=$(missing "$@")
[ -n "$need" ] || exit 0
if [ -n "$check_only" ]; then
    echo "missing packages: $need" >&2
    echo "install them with:  tools/deps.sh $*" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "deps.sh: these are missing, and there is no apt-get to install them: $need" >&2
    exit 1
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "deps.sh: not root and no sudo; as root: apt-get install $need" >&2
        exit 1
    fi
    as_root="sudo"
fi
echo "== installing, which takes a minute:"
echo "$need" | fold -s -w 76 | sed 's/^/   /'
log=$(mktemp)
policy=
trap 'rm -f "$log"; [ -z "$policy" ] || $as_root rm -f "$policy"' EXIT
trap 'exit 1' INT TERM HUP # by way of EXIT
quietly() {
    # shellcheck disable=SC2086 # no word, or one
    if ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        echo "deps.sh: apt-get $1 failed" >&2
        exit 1
    fi
}
# The peers of the benchmarks are servers, and a package starts its server at installation
# unless policy-rc.d says no.  Ours goes again with this script; one that is there stays.
case " $* " in
*" peers "*)
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    echo "   Their services are not started, but will be at the next boot; if unwanted:"
    echo "   systemctl disable nginx haproxy squid trafficserver"
    ;;
esac
quietly update
# shellcheck disable=SC2086 # a list of words
quietly install --no-install-recommends $need

need=$(missing "$@")
if [ -n "$need" ]; then
    echo "deps.sh: installed, yet not usable: $need" >&2
    exit 1
fi
