#!/bin/sh
# `make miri`: the core's decoders and data structures under Miri, which sees undefined behaviour that a run survives.
# Kernels for single processors are left out: Miri does not know their instructions.
set -eu
cd "$(dirname "$0")/../.."
toolchain=${MIRI_TOOLCHAIN:-nightly}
if ! rustup run "$toolchain" cargo miri --version >/dev/null 2>&1; then
    echo "miri: no toolchain '$toolchain' with Miri; rustup toolchain install nightly --component miri rust-src" >&2
    exit 1
fi
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}" CARGO_TARGET_DIR=target/miri
export LLMCACHE_FUZZ_RUNS="${LLMCACHE_FUZZ_RUNS:-20}"
for target in stub chunk tokens namespace evidence entry head effect filter record line session; do
    echo "miri: $target"
    LLMCACHE_FUZZ_TARGET=$target rustup run "$toolchain" cargo miri test --quiet -p llmcache-core --test fuzz seeds
done
