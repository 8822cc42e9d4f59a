#!/bin/sh
# Makes sure that what building and testing need is on this machine. Installs it with apt when run
# as root on Debian or a relative of it; elsewhere it names what is missing and fails. Does nothing,
# and takes no time, when all is there.
set -eu

missing=""
need() {
    # need PACKAGE COMMAND...: the package is missing unless the command succeeds.
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

has_libclang() {
    ldconfig -p 2>/dev/null | grep -q 'libclang[-.].*so' && return 0
    [ -n "${LIBCLANG_PATH:-}" ] && ls "$LIBCLANG_PATH"/libclang*.so* && return 0
    ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib64/libclang*.so* /opt/homebrew/opt/llvm/lib/libclang.dylib 2>/dev/null | grep -q .
}

find_missing() {
    missing=""
    need "gcc libc6-dev" command -v cc
    need clang command -v clang
    need libclang-dev has_libclang
    need redis-server command -v redis-server
    need redis-tools command -v redis-cli
    need python3 command -v "${PYTHON:-python3}"
    need python3-venv "${PYTHON:-python3}" -c 'import ensurepip, venv'
}

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: cargo is not in PATH. Install Rust 1.89 or newer with rustup, then run this again." >&2
    exit 1
fi

find_missing
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: missing on this machine:$missing" >&2
    echo "setup: on Debian or Ubuntu, as root: apt-get install$missing" >&2
    echo "setup: elsewhere: a C compiler, clang with libclang, redis-server 7 or newer with redis-cli, Python 3.11 or newer with venv" >&2
    exit 1
fi

echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086  # a list of package names
apt-get install -q -y --no-install-recommends $missing

find_missing
if [ -n "$missing" ]; then
    echo "setup: still missing after the installation:$missing" >&2
    exit 1
fi
