# The fuzz targets: that they compile, and running each for a while.
# shellcheck shell=bash

CARGO_FUZZ_VERSION=0.13.1

# Seconds each target runs, and the longest input it is given, in bytes.
FUZZ_SECS=${OZMA_FUZZ_SECS:-60}
FUZZ_MAX_BYTES=4096

# Instrumented builds; what the targets found interesting is kept in FUZZ_STATE from one run to the next.
FUZZ_BUILD=$TARGET/fuzz
FUZZ_STATE=$STATE/fuzz

fuzz_targets() { sed -n 's/^path = "targets\/\(.*\)\.rs"$/\1/p' "$ROOT/fuzz/Cargo.toml"; }

# fuzz_targets_compile: quick, and without what only linking them needs, so that they do not rot between long runs.
fuzz_targets_compile() {
    RUSTFLAGS="${RUSTFLAGS:-} --cfg fuzzing" cargo check --locked --quiet --no-default-features \
        --manifest-path "$ROOT/fuzz/Cargo.toml" --target-dir "$FUZZ_BUILD"
}

# build_fuzz_targets: with the toolchain everything else is built with. The one thing that asks for a nightly is an
# address sanitizer, which has little to find in a workspace that forbids unsafe code.
build_fuzz_targets() {
    local tools=$STATE/tools
    if [[ $("$tools/bin/cargo-fuzz" --version 2>/dev/null) != "cargo-fuzz $CARGO_FUZZ_VERSION" ]]; then
        say "installing cargo-fuzz $CARGO_FUZZ_VERSION"
        cargo install --locked --quiet --version "$CARGO_FUZZ_VERSION" --root "$tools" cargo-fuzz || return 1
    fi
    say "building the fuzz targets"
    PATH=$tools/bin:$PATH cargo fuzz build --fuzz-dir "$ROOT/fuzz" --sanitizer none --target-dir "$FUZZ_BUILD"
}

# run_fuzz_target NAME: begins with the seeds and what earlier runs have found worth keeping.
run_fuzz_target() {
    local name=$1 log=$FUZZ_STATE/$1.log binary status=0 folder=${TMPDIR:-/tmp}
    # Some targets write files for each input.
    [[ -w /dev/shm ]] && folder=/dev/shm
    binary=$FUZZ_BUILD/$(rustc -vV | sed -n 's/^host: //p')/release/$name
    mkdir -p "$FUZZ_STATE/corpus/$name" "$FUZZ_STATE/finds/$name"
    TMPDIR=$folder "$binary" -max_total_time="$FUZZ_SECS" -max_len="$FUZZ_MAX_BYTES" -timeout=10 -rss_limit_mb=2048 \
        -dict="$ROOT/fuzz/words.dict" -artifact_prefix="$FUZZ_STATE/finds/$name/" -print_final_stats=1 \
        "$FUZZ_STATE/corpus/$name" "$ROOT/fuzz/seeds/$name" >"$log" 2>&1 || status=$?
    if ((status)); then
        grep --text --after-context 6 'panicked at' "$log" >&2 || tail -n 20 "$log" >&2
        warn "the input is in $FUZZ_STATE/finds/$name; again with: $binary FILE"
        return 1
    fi
    say "$name: $(sed -n 's/^stat::average_exec_per_sec: *//p' "$log") inputs a second"
}
