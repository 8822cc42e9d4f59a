#!/bin/sh
# Loads the aarch64 module of dist/ into Debian's redis-server for arm64 under emulation, stores an answer and finds it.
# Needs root on Debian, for apt: qemu-user-static, and the packages of the server and its libraries, which are unpacked
# into a folder of their own and not installed. Takes about a minute after `make dist`.
set -eu
cd "$(dirname "$0")/.."

module=$(realpath dist/libllmcache-*-aarch64.so)
root=${AARCH64_ROOT:-$(mktemp -d)}
export DEBIAN_FRONTEND=noninteractive
command -v qemu-aarch64-static >/dev/null || apt-get install -q -y --no-install-recommends qemu-user-static
if [ ! -x "$root/usr/bin/redis-server" ]; then
    dpkg --print-foreign-architectures | grep -qx arm64 || { dpkg --add-architecture arm64; apt-get update -q; }
    debs=$(mktemp -d)
    chmod 755 "$debs"
    (cd "$debs" && apt-get download -q redis-server:arm64 redis-tools:arm64 libc6:arm64 libgcc-s1:arm64 libatomic1:arm64 \
        libhiredis0.14:arm64 libjemalloc2:arm64 liblua5.1-0:arm64 lua-cjson:arm64 lua-bitop:arm64 liblzf1:arm64 \
        libssl3:arm64 libstdc++6:arm64 libsystemd0:arm64 liblzma5:arm64 libzstd1:arm64 liblz4-1:arm64 libcap2:arm64 \
        libgcrypt20:arm64 libgpg-error0:arm64)
    for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$root"; done
    rm -rf "$debs"
fi

data=$(mktemp -d)
run() { qemu-aarch64-static -L "$root" "$@"; }
run "$root/usr/bin/redis-server" --port 0 --unixsocket "$data/socket" --dir "$data" --save '' --loadmodule "$module" >"$data/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
i=0
until redis-cli -s "$data/socket" ping >/dev/null 2>&1; do
    i=$((i + 1))
    [ $i -lt 300 ] || { cat "$data/log"; exit 1; }
    sleep 0.2
done
ask() { redis-cli -s "$data/socket" "$@"; }
ask LLMCACHE.SETSEM faq PROMPT "How do I get my money back?" RESPONSE "Refunds take 5 days." VALUES 3 0.9 0.4 0.1 >/dev/null
exact=$(ask LLMCACHE.GET faq PROMPT "How do I get my money back?")
near=$(ask LLMCACHE.GETSEM faq PROMPT "Can I have a refund?" VALUES 3 0.88 0.45 0.12 RETURN 2 similarity response)
ask LLMCACHE.INFO faq | grep -A1 kernels
echo "$near"
[ "$exact" = "Refunds take 5 days." ] && echo "$near" | grep -q 0.998341 && echo "aarch64: stored, found exactly and by similarity"
