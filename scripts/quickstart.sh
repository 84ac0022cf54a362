#!/usr/bin/env bash
# Sets everything up and runs the demo: a coding run, from request to patch, in a container of its own.
#
#   scripts/quickstart.sh [--keep]      --keep leaves the stack running afterwards
#
# Every argument goes to `ozma demo`, and so does the environment: with OPENAI_API_KEY or OZ_PROVIDER_* set the
# demo uses that model, otherwise a scripted one. The second time it only does what has changed.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ensure_toolchain
# What it cannot do without, and what it would rather have.
need cc git
install_missing || die "install what is missing above, then run this again"
need musl busybox debootstrap
install_missing || true

ENGINE=
if ensure_engine; then
    ENGINE=1
else
    warn "going on without containers: runs happen in a folder of this machine, unisolated"
fi

# The base image comes over the network and the binaries from the compiler: side by side.
BASE_JOB=
if [[ -n $ENGINE ]] && ! image_exists "$BASE_IMAGE"; then
    say "making the base image in the background (log: $STATE/base-image.log)"
    make_base_image >"$STATE/base-image.log" 2>&1 &
    BASE_JOB=$!
fi

build_ozma
build_sidecar

if [[ -n $ENGINE ]]; then
    make_sidecar_image
    if [[ -n $BASE_JOB ]]; then
        follow "$BASE_JOB" "$STATE/base-image.log" "base image" ||
            die "the base image could not be made; see $STATE/base-image.log"
    fi
    make_demo_image
else
    # Where the direct backend looks for it: beside the executable.
    install -m 755 "$SIDECAR" "$(dirname "$OZMA")/ozma-sidecar"
fi

say "running the demo"
exec "$OZMA" demo "$@"
