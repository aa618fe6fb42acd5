#!/bin/sh
# closure.sh - copy the shared libraries that a program needs, except those of libc.
#
#   tools/closure.sh [--list FILE] BINARY DIRECTORY
#
# With --list the names must be exactly those of FILE, so that an image does not grow, or
# lose a library, unnoticed.  Libraries of libc come with the base image.
set -eu

list=
if [ "${1:-}" = --list ]; then
    list=$2
    shift 2
fi
binary=$1
into=$2

wanted=$(ldd "$binary" | sed -n 's/^[[:space:]]*\([^ ]*\) => \(\/[^ ]*\).*/\1 \2/p' |
    grep -Ev '^(libc|libm|libpthread|libdl|librt|libresolv)\.so\.' | LC_ALL=C sort)
if ldd "$binary" | grep -q 'not found'; then
    ldd "$binary" | grep 'not found' >&2
    exit 1
fi
if [ -n "$list" ]; then
    names=$(mktemp)
    echo "$wanted" | cut -d' ' -f1 >"$names"
    grep -v '^#' "$list" | diff -u - "$names" >&2 || {
        rm -f "$names"
        echo "closure.sh: the libraries of $binary are not those of $list" >&2
        exit 1
    }
    rm -f "$names"
fi
mkdir -p "$into/usr/lib"
echo "$wanted" | while read -r name path; do
    cp -L "$path" "$into/usr/lib/$name"
done
echo "$(echo "$wanted" | wc -l) libraries, $(du -sk "$into/usr/lib" | cut -f1) KiB"
