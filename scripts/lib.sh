# Shared by quickstart.sh and test.sh: where things are, how to speak, and the parts in lib/.
# Sourced, never run. Everything here may be called again at any time and does only what is still to do.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

# Cargo's own folder, wherever the user has put it; ours is below it.
TARGET=${CARGO_TARGET_DIR:-target}
[[ $TARGET == /* ]] || TARGET=$ROOT/$TARGET
STATE=$TARGET/ozma
mkdir -p "$STATE"

# say TEXT: one line of progress, with the seconds since the start.
say() { printf '\033[1m[%4ds]\033[0m %s\n' "$SECONDS" "$*"; }
[[ -t 1 ]] || say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }

warn() { printf 'warning: %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [[ $(id -u) == 0 ]]; }

# follow PID LOG WHAT: waits for a background job and shows the newest line of its log now and then.
# Gives the job's status.
follow() {
    local pid=$1 log=$2 what=$3 line shown=
    while kill -0 "$pid" 2>/dev/null; do
        line=$(tail -n 1 "$log" 2>/dev/null | cut -c 1-100 || true)
        if [[ -n $line && $line != "$shown" ]]; then
            say "$what: $line"
            shown=$line
        fi
        # Poll often, speak seldom.
        for _ in 1 2 3 4 5 6 7 8; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.5
        done
    done
    wait "$pid"
}

# shellcheck source=scripts/lib/packages.sh
source "$ROOT/scripts/lib/packages.sh"
# shellcheck source=scripts/lib/engine.sh
source "$ROOT/scripts/lib/engine.sh"
# shellcheck source=scripts/lib/build.sh
source "$ROOT/scripts/lib/build.sh"
# shellcheck source=scripts/lib/images.sh
source "$ROOT/scripts/lib/images.sh"
