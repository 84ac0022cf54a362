# The checks of test.sh, and counting them.
# shellcheck shell=bash

PASSED=0
FAILED=0
FAILURES=()

# Largest sidecar that is still small, in bytes; the clone is done by a `git` built in.
SIDECAR_MAX_BYTES=$((10 * 1000 * 1000))

# check NAME COMMAND…: runs it, counts it, goes on either way.
check() {
    local name=$1
    shift
    say "check: $name"
    if "$@"; then
        PASSED=$((PASSED + 1))
    else
        FAILED=$((FAILED + 1))
        FAILURES+=("$name")
        warn "failed: $name"
    fi
}

shellcheck_scripts() {
    shellcheck --external-sources .ci/run scripts/*.sh scripts/lib/*.sh compose/demo/project/test.sh
}

document() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet; }

sidecar_is_static_and_small() {
    local bytes
    bytes=$(stat --format %s "$SIDECAR") || return 1
    say "the sidecar has $bytes bytes"
    if readelf --program-headers "$SIDECAR" | grep -q INTERP; then
        warn "$SIDECAR asks for a dynamic linker"
        return 1
    fi
    if ((bytes > SIDECAR_MAX_BYTES)); then
        warn "$SIDECAR has $bytes bytes, more than $SIDECAR_MAX_BYTES"
        return 1
    fi
}

# run_tests: every test of the workspace, counted one by one.
run_tests() {
    local log=$STATE/tests.log status=0 passed failed crashed
    say "running the tests (log: $log)"
    cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$log" || status=$?
    passed=$(sum_of passed "$log")
    failed=$(sum_of failed "$log")
    # A test binary that died of a signal has no result line of its own.
    crashed=$(grep -c "process didn't exit successfully.*(signal:" "$log" || true)
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed + crashed))
    mapfile -t -O "${#FAILURES[@]}" FAILURES < <(
        sed -nE "s/^test (.*) \.\.\. FAILED$/\1/p; s/^.*process didn't exit successfully: (.*signal:.*)/\1/p" "$log"
    )
    if ((status && failed + crashed == 0)); then
        FAILED=$((FAILED + 1))
        FAILURES+=("cargo test: did not compile or did not run, see $log")
    elif ((passed + failed + crashed == 0)); then
        FAILED=$((FAILED + 1))
        FAILURES+=("cargo test: not one test ran")
    fi
}

# demo_runs: what the quick start ends with, with the scripted model whatever this machine has configured.
demo_runs() {
    # The tests have built the binary.
    local log=$STATE/demo.log ozma=$TARGET/debug/ozma
    make_demo_image || return 1
    env -u OPENAI_API_KEY -u OPENAI_BASE_URL -u OZ_PROVIDER_API_KEY -u OZ_PROVIDER_BASE_URL \
        XDG_CONFIG_HOME="$STATE/no-context" "$ozma" demo --backend docker >"$log" 2>&1 ||
        { tail -n 30 "$log" >&2; return 1; }
}

# sum_of WORD LOG: adds the numbers before WORD in cargo's result lines.
sum_of() {
    awk -v word="$1;" '/^test result: / { for (i = 2; i <= NF; i++) if ($i == word) sum += $(i - 1) }
        END { print sum + 0 }' "$2"
}

# leftovers: everything on the engine that a run or a test of ours makes, one line each.
leftovers() {
    local label
    for label in ozma.test ozma.worker ozma.sidecar; do
        docker ps --all --filter "label=$label" --format 'container {{.Names}} ({{.Image}}, {{.Status}})'
        docker network ls --filter "label=$label" --format 'network {{.Name}}'
        docker volume ls --filter "label=$label" --format 'volume {{.Name}}'
    done 2>/dev/null | sed 's/, Up [^)]*)/)/' | sort -u
}

nothing_left_behind() {
    local left
    # The worker keeps its sidecar's volume, one for each image, for whoever comes next. What the tests made of
    # it goes; one that was there before, or that somebody uses, stays.
    leftovers | comm -13 "$1" - | sed -n 's/^volume \(ozma-sidecar-.*\)/\1/p' |
        xargs --no-run-if-empty docker volume rm >/dev/null || true
    left=$(leftovers | comm -13 "$1" -)
    [[ -z $left ]] || {
        warn "left behind:"
        printf '%s\n' "$left" >&2
        return 1
    }
}

# finish: the last lines, and the script's exit code.
finish() {
    local failure
    for failure in "${FAILURES[@]}"; do printf 'failed: %s\n' "$failure"; done
    printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
    ((FAILED == 0))
}
