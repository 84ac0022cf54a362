# Building the two artefacts: `ozma` and the static sidecar.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153  # the results are read by the scripts that source this

MACHINE=$(uname -m)

# sidecar_target: the Rust target the sidecar is built for. musl where it can be had; the gnu target with
# everything linked in otherwise, which is known to crash in images whose libc is newer (name lookup loads the
# image's own modules).
sidecar_target() {
    local musl=$MACHINE-unknown-linux-musl
    if [[ -d $(rustc --print sysroot)/lib/rustlib/$musl ]]; then
        echo "$musl"
    elif have rustup && rustup target add "$musl" >"$STATE/rustup.log" 2>&1; then
        echo "$musl"
    else
        warn "the target $musl cannot be had (see $STATE/rustup.log); using the gnu target, linked statically"
        echo "$MACHINE-unknown-linux-gnu"
    fi
}

# build_sidecar: puts the path of the static binary into SIDECAR.
build_sidecar() {
    local target flags=
    target=$(sidecar_target)
    [[ $target == *-gnu ]] && flags="-C target-feature=+crt-static"
    say "building the sidecar ($target)"
    RUSTFLAGS="${RUSTFLAGS:-} $flags" \
        cargo build --package sidecar --profile sidecar --target "$target" || return 1
    SIDECAR=$TARGET/$target/sidecar/ozma-sidecar
}

# build_ozma: puts the path of the binary into OZMA. The profile is the one the tests use, so that neither
# script builds what the other has built.
build_ozma() {
    say "building ozma"
    cargo build --package cli --bin ozma || return 1
    OZMA=$TARGET/debug/ozma
}
