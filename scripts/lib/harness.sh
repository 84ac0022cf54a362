# The images with the command lines of providers, which the tests of providers run.
# shellcheck shell=bash

# make_harness_images: the real command lines, fetched by npm; does nothing for those that are there in the version
# this checkout is tried with.
make_harness_images() {
    local log=$STATE/harness-images.log
    cargo build --locked --quiet --package cli --bin ozma || return 1
    "$TARGET/debug/ozma" harness build claude codex opencode gemini >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        return 1
    }
}
