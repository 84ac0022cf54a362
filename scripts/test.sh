#!/usr/bin/env bash
# Sets everything up and runs every check and every test. Continuous integration runs this and nothing else.
#
#   scripts/test.sh           every check and test
#   scripts/test.sh --long    the same with more runs, seeds and cases, and each fuzz target for a minute
#   scripts/test.sh --help    this text
#
# Ends with one plain line, `N passed, N failed`, above it the name of each failure; the exit code follows it.
# Without a container engine it fails: the tests in containers are not skipped.
#
# What --long sets can be set by itself: OZMA_LONG=1 (more runs and seeds of the fault tests and the simulation),
# PROPTEST_CASES (4096; 256 without it), OZMA_FUZZ_SECS (60, of each target).

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/lib/checks.sh
source "$ROOT/scripts/lib/checks.sh"
# shellcheck source=scripts/lib/fuzz.sh
source "$ROOT/scripts/lib/fuzz.sh"
# shellcheck source=scripts/lib/harness.sh
source "$ROOT/scripts/lib/harness.sh"

usage() { sed -n '/^#!/d; /^#/!q; s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

LONG=
for argument in "$@"; do
    case $argument in
        --long) LONG=1 ;;
        -h | --help)
            usage
            exit
            ;;
        *)
            usage >&2
            die "there is no $argument here"
            ;;
    esac
done
if [[ $LONG ]]; then export OZMA_LONG=1 PROPTEST_CASES=${PROPTEST_CASES:-4096}; fi

trap stop_started_engine EXIT

ensure_toolchain
need cc git musl busybox debootstrap postgres chromium python npm
if [[ $LONG ]]; then need cxx; fi
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
check "the fuzz targets compile" fuzz_targets_compile
check "the documentation builds" document
check "the sidecar builds" build_sidecar
check "the sidecar is static and small" sidecar_is_static_and_small
check "the sidecar's image is made" make_sidecar_image
check "the providers' images are made" make_harness_images
[[ -z $BASE_JOB ]] || check "the base image is made" \
    follow "$BASE_JOB" "$STATE/base-image.log" "base image"
run_tests
if [[ $LONG ]]; then
    check "the fuzz targets are built" build_fuzz_targets
    for target in $(fuzz_targets); do check "fuzz $target" run_fuzz_target "$target"; done
fi
check "the demo runs in a container" demo_runs
check "the tests left nothing behind" nothing_left_behind "$BEFORE"

stop_started_engine
finish
