# A container engine: the one that answers, or one started by hand.
# shellcheck shell=bash

ENGINE_PID_FILE=$STATE/dockerd.pid
ENGINE_STARTED=

# engine_answers: whether a Docker engine answers where DOCKER_HOST, or the default, says.
engine_answers() {
    have docker && timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# ensure_engine: an engine that answers. Fails, having said why, where there can be none.
ensure_engine() {
    if engine_answers; then return 0; fi
    if [[ -n ${DOCKER_HOST:-} ]]; then
        need docker
        install_missing || return 1
        engine_answers && return 0
        warn "no container engine answers at DOCKER_HOST=$DOCKER_HOST"
        return 1
    fi
    need docker dockerd
    install_missing || return 1
    if engine_answers; then return 0; fi
    if ! is_root; then
        warn "no container engine answers; start one (sudo systemctl start docker), or run this as root"
        return 1
    fi
    if [[ -d /run/systemd/system ]] && systemctl start docker 2>/dev/null && engine_answers; then
        return 0
    fi
    start_engine
}

# forget_dead PID_FILE NAME: removes a pid file that an engine killed without warning has left. Its process may
# be gone, a zombie, or somebody else by now; a new engine would take it for its own and wait for it in vain.
forget_dead() {
    local file=$1 name=$2 program
    [[ -f $file ]] || return 0
    program=$(readlink "/proc/$(<"$file")/exe" 2>/dev/null) || program=
    if [[ $program != */"$name"* ]]; then rm -f "$file"; fi
}

start_engine() {
    say "starting a container engine by hand (log: $STATE/dockerd.log)"
    forget_dead "$ENGINE_PID_FILE" dockerd
    forget_dead /var/run/docker/containerd/containerd.pid containerd
    # Of its own session, so that a Ctrl-C here does not end it in the middle of something.
    setsid dockerd --pidfile "$ENGINE_PID_FILE" >"$STATE/dockerd.log" 2>&1 </dev/null &
    local pid=$! _
    for _ in $(seq 120); do
        if engine_answers; then
            ENGINE_STARTED=1
            return 0
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.5
    done
    tail -n 5 "$STATE/dockerd.log" >&2
    warn "dockerd did not start; its last lines are above"
    return 1
}

# stop_started_engine: stops the engine if this script started it; one that was running before goes on.
stop_started_engine() {
    [[ -n $ENGINE_STARTED && -f $ENGINE_PID_FILE ]] || return 0
    local pid _
    pid=$(cat "$ENGINE_PID_FILE")
    say "stopping the container engine that this script started"
    ENGINE_STARTED=
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 60); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.5
    done
    warn "dockerd (process $pid) does not stop"
}
