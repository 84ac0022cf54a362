# What must be installed, and installing it where we may: as root, with apt-get.
# shellcheck shell=bash

# Debian packages found missing so far.
MISSING=()

# is_static FILE: whether it runs without any library of the machine.
is_static() { [[ -x $1 ]] && ! LC_ALL=C ldd "$1" 2>/dev/null | grep -q '=>'; }

postgres_installed() {
    have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

# need THING…: notes the packages of what is not there. A thing is one of the names below.
need() {
    local thing
    for thing in "$@"; do
        case $thing in
            cc) have cc || MISSING+=(gcc libc6-dev) ;;
            cxx) have c++ || MISSING+=(g++) ;;
            git) have git || MISSING+=(git ca-certificates) ;;
            musl) have musl-gcc || MISSING+=(musl-tools) ;;
            busybox) is_static /bin/busybox || MISSING+=(busybox-static) ;;
            debootstrap) have debootstrap || MISSING+=(debootstrap) ;;
            postgres) postgres_installed || MISSING+=(postgresql) ;;
            python) python3 -c 'import ensurepip, venv' 2>/dev/null || MISSING+=(python3 python3-venv) ;;
            npm) have npm || MISSING+=(nodejs npm) ;;
            chromium) have chromium || MISSING+=(chromium) ;;
            shellcheck) have shellcheck || MISSING+=(shellcheck) ;;
            docker) have docker || MISSING+=(docker.io docker-cli) ;;
            dockerd) have dockerd || MISSING+=(docker.io iptables) ;;
            *) die "need: no such thing: $thing" ;;
        esac
    done
}

can_install() { is_root && have apt-get; }

# install_missing: installs what need() noted, and forgets it. Where it may not, it says how to and fails.
install_missing() {
    local missing=("${MISSING[@]}") wanted=() package
    MISSING=()
    ((${#missing[@]})) || return 0
    if ! can_install; then
        warn "missing: ${missing[*]}. On Debian or Ubuntu: sudo apt-get install ${missing[*]}"
        return 1
    fi
    say "installing with apt-get: ${missing[*]}"
    apt-get update -qq || warn "apt-get update failed; trying with the lists there are"
    for package in "${missing[@]}"; do
        # Some names exist only in some releases: docker-cli came later, split from docker.io.
        if apt-cache show "$package" >/dev/null 2>&1; then wanted+=("$package"); fi
    done
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Use-Pty=0 "${wanted[@]}" >"$STATE/apt.log" 2>&1 || {
        tail -n 20 "$STATE/apt.log" >&2
        warn "apt-get could not install: ${wanted[*]}"
        return 1
    }
}

# ensure_toolchain: a Rust toolchain of the version in rust-toolchain.toml.
ensure_toolchain() {
    if ! have cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then PATH=$HOME/.cargo/bin:$PATH; fi
    have cargo || die "no Rust toolchain: install it from https://rustup.rs, then run this again"
    cargo --version >/dev/null 2>&1 && return 0
    have rustup || die "this cargo does not have the toolchain that rust-toolchain.toml names"
    say "installing the toolchain that rust-toolchain.toml names"
    rustup toolchain install
}
