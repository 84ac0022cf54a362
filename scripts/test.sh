#!/usr/bin/env bash
# Sets everything up and runs every check and every test. Continuous integration runs this and nothing else.
#
# Ends with one plain line, `N passed, N failed`, above it the name of each failure; the exit code follows it.
# Without a container engine it fails: the tests in containers are not skipped.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib/checks.sh
source "$ROOT/scripts/lib/checks.sh"

trap stop_started_engine EXIT

ensure_toolchain
need cc git musl busybox debootstrap postgres chromium python
# The scripts' own check is worth having, and nothing fails without it.
if can_install; then need shellcheck; fi
check "everything the tests need is installed" install_missing
check "a container engine answers" ensure_engine
BEFORE=$STATE/before.txt
leftovers >"$BEFORE" || true

BASE_JOB=
if ! image_exists "$BASE_IMAGE"; then
    say "making the base image in the background (log: $STATE/base-image.log)"
    make_base_image >"$STATE/base-image.log" 2>&1 &
    BASE_JOB=$!
fi

check "the code is formatted" cargo fmt --all --check
if have shellcheck; then check "the scripts are sound" shellcheck_scripts; fi
check "clippy is content" cargo clippy --locked --workspace --all-targets -- -D warnings
check "the documentation builds" document
check "the sidecar builds" build_sidecar
check "the sidecar is static and small" sidecar_is_static_and_small
check "the sidecar's image is made" make_sidecar_image
[[ -z $BASE_JOB ]] || check "the base image is made" \
    follow "$BASE_JOB" "$STATE/base-image.log" "base image"
run_tests
check "the demo runs in a container" demo_runs
check "the tests left nothing behind" nothing_left_behind "$BEFORE"

stop_started_engine
finish
