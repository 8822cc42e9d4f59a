#!/bin/sh
# Builds what a release attaches, in dist/: a stripped module, a Debian package and a wheel for each architecture, the
# wheel of the Python client's extension for this one, and their checksums. aarch64 is built where Rust's target and Debian's cross compiler are there (gcc-aarch64-linux-gnu,
# libc6-dev-arm64-cross; `rustup target add aarch64-unknown-linux-gnu`), and named as left out where they are not.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
target_dir=${CARGO_TARGET_DIR:-target}
mkdir -p dist
rm -f dist/*

# build TRIPLE STRIP: the module of that architecture.
build() {
    cargo build --release --locked -p llmcache --target "$1"
    "$2" --strip-unneeded -o "dist/libllmcache-$version-$3.so" "$target_dir/$1/release/libllmcache.so"
}

# package ARCHITECTURE DEBIAN-ARCHITECTURE OBJDUMP: a wheel, and a .deb with the module where Debian's unit lets the server map it. The server
# loads executable files only.
package() {
    root=$(mktemp -d)
    chmod 755 "$root"
    install -D -m 755 "dist/libllmcache-$version-$1.so" "$root/usr/lib/redis/modules/libllmcache.so"
    install -D -m 644 -t "$root/usr/share/doc/llmcache" LICENSE-APACHE LICENSE-MIT CHANGELOG.md README.md
    install -D -m 644 redis.conf "$root/usr/share/doc/llmcache/examples/redis.conf"
    mkdir -p "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: llmcache
Version: $version
Architecture: $2
Maintainer: The llmcache maintainers <maintainers@llmcache.invalid>
Installed-Size: $(du -ks "$root/usr" | cut -f1)
Depends: libc6 (>= 2.34), libgcc-s1
Recommends: redis-server (>= 5:7.0) | valkey-server
Section: database
Priority: optional
Description: semantic cache for LLM applications, a Redis and Valkey module
 Finds a stored answer by exact prompt or by similarity in one command; also
 embeddings, documents, conversations and KV-cache chunks. Load it by
 "loadmodule /usr/lib/redis/modules/libllmcache.so" in redis.conf.
CONTROL
    dpkg-deb --root-owner-group --build "$root" "dist/llmcache_${version}_$2.deb" >/dev/null
    rm -rf "$root"
    OBJDUMP=$3 scripts/wheel.py "dist/libllmcache-$version-$1.so" "$1" dist
}

build x86_64-unknown-linux-gnu strip x86_64
package x86_64 amd64 objdump
if command -v aarch64-linux-gnu-gcc >/dev/null && [ -d "$(rustc --print sysroot)/lib/rustlib/aarch64-unknown-linux-gnu" ]; then
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
    export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="--sysroot=/usr/aarch64-linux-gnu -I/usr/aarch64-linux-gnu/include"
    build aarch64-unknown-linux-gnu aarch64-linux-gnu-strip aarch64
    package aarch64 arm64 aarch64-linux-gnu-objdump
else
    echo "dist: aarch64 is left out: gcc-aarch64-linux-gnu or Rust's target is missing" >&2
fi
# Its tag is of the oldest glibc that it runs with, as maturin reads it from the library.
.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist \
    --config-settings=build-args="--compatibility pypi" clients/python/native
cd dist
sha256sum -- * >SHA256SUMS
ls -l
