# Container images, made without any image registry: the sidecar's, a base to work in, the demo's.
# Each carries the digest of what it was made from, and is made again only when that changes.
# shellcheck shell=bash

SIDECAR_IMAGE=ozma-sidecar:latest
BASE_IMAGE=ozma-base:bookworm
DEMO_IMAGE=ozma-demo:latest
DIGEST_LABEL=ozma.made-from

# is_made_from IMAGE DIGEST: whether the image is there and made from exactly this.
is_made_from() {
    local label
    label=$(docker image inspect --format "{{index .Config.Labels \"$DIGEST_LABEL\"}}" "$1" 2>/dev/null) &&
        [[ $label == "$2" ]]
}

image_exists() { docker image inspect "$1" >/dev/null 2>&1; }

# digest_of FILE…: one digest over the contents; folders count with everything in them.
digest_of() { find "$@" -type f -print0 | sort -z | xargs -0 cat | sha256sum | cut -c 1-64; }

# import_image FOLDER NAME CHANGE…: an image of one layer from a folder, everything owned by root.
import_image() {
    local folder=$1 name=$2 changes=() change
    shift 2
    for change in "$@"; do changes+=(--change "$change"); done
    tar --create --owner=0 --group=0 --numeric-owner --directory "$folder" . |
        docker import "${changes[@]}" - "$name" >/dev/null
}

# put_busybox FOLDER: a static busybox with its shell and tools.
put_busybox() {
    local folder=$1 applet
    mkdir -p "$folder/bin"
    cp /bin/busybox "$folder/bin/busybox"
    for applet in $(/bin/busybox --list); do
        [[ $applet == busybox ]] || ln -sf busybox "$folder/bin/$applet"
    done
}

# build_image DOCKERFILE FOLDER NAME DIGEST: docker build, with the old builder where the new one is not installed.
build_image() {
    local buildkit=1
    docker buildx version >/dev/null 2>&1 || buildkit=0
    DOCKER_BUILDKIT=$buildkit docker build --quiet --file "$1" --tag "$3" --label "$DIGEST_LABEL=$4" "$2" \
        >"$STATE/build-image.log" 2>&1 || {
        tail -n 20 "$STATE/build-image.log" >&2
        return 1
    }
}

# make_sidecar_image: the static binary, and the shell and tar that stock workers ask of a sidecar's image.
make_sidecar_image() {
    local digest folder made=0
    digest=$(digest_of "$SIDECAR" compose/sidecar) || return 1
    is_made_from "$SIDECAR_IMAGE" "$digest" && return 0
    say "making the sidecar's image"
    folder=$(mktemp -d)
    mkdir "$folder"/{agent,bin,etc}
    # Not to be read by the agent: the kernel lets nobody look into a process of a binary that its user may not read.
    install -m 711 "$SIDECAR" "$folder/ozma-sidecar"
    ln "$folder/ozma-sidecar" "$folder/agent/ozma-sidecar"
    install -m 755 compose/sidecar/entrypoint.sh "$folder/entrypoint.sh"
    install -m 644 compose/sidecar/passwd "$folder/etc/passwd"
    if is_static /bin/busybox; then
        install -m 755 /bin/busybox "$folder/bin/sh"
        ln "$folder/bin/sh" "$folder/bin/tar"
    else
        warn "no static busybox: the sidecar's image will not do for stock workers (on Debian: busybox-static)"
    fi
    build_image compose/sidecar/Dockerfile "$folder" "$SIDECAR_IMAGE" "$digest" || made=1
    rm -rf "$folder"
    return "$made"
}

# make_base_image: git and a shell to work with, from wherever this machine gets Debian.
make_base_image() {
    image_exists "$BASE_IMAGE" && return 0
    base_from_registry || base_from_mirror || base_from_busybox
}

# A registry that answers gives the official image in seconds; one that does not must not cost minutes.
base_from_registry() {
    local name=debian:bookworm-slim
    timeout 8 docker manifest inspect "$name" >/dev/null 2>&1 || return 1
    echo "pulling $name"
    timeout 180 docker pull --quiet "$name" || return 1
    echo "adding git to $name"
    docker rm --force ozma-make-base >/dev/null 2>&1 || true
    docker run --name ozma-make-base "$name" sh -ec '
        apt-get update
        apt-get install -y --no-install-recommends git ca-certificates
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*' &&
        docker commit --change 'CMD ["/bin/bash"]' ozma-make-base "$BASE_IMAGE" >/dev/null
    local made=$?
    docker rm --force --volumes ozma-make-base >/dev/null 2>&1 || true
    return "$made"
}

# The mirror this machine installs its own packages from.
debian_mirror() {
    local files=(/etc/apt/sources.list /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/*.sources)
    cat "${files[@]}" 2>/dev/null |
        sed -nE -e 's/^URIs: *([^ ]*debian\/?) *.*/\1/p' \
            -e 's/^deb +(\[[^]]*\] +)?([^ ]*debian\/?) .*/\2/p' | head -n 1
}

# root_folder: makes a folder that may hold devices; /tmp often may not.
root_folder() {
    local place folder
    for place in /var/tmp "$STATE" /tmp; do
        folder=$(mktemp -d "$place/ozma-base.XXXXXX") || continue
        if mknod "$folder/null" c 1 3 2>/dev/null && : 2>/dev/null >"$folder/null"; then
            rm "$folder/null"
            echo "$folder"
            return 0
        fi
        rm -rf "$folder"
    done
    return 1
}

base_from_mirror() {
    local mirror folder
    mirror=$(debian_mirror)
    [[ -n $mirror ]] && is_root && have debootstrap || return 1
    folder=$(root_folder) || return 1
    # The packages stay below the target folder, for the next time.
    mkdir -p "$STATE/packages"
    echo "making a Debian base image with debootstrap"
    if debootstrap --variant=minbase --include=git,ca-certificates \
        --cache-dir="$STATE/packages" bookworm "$folder" "$mirror"; then
        # Nobody reads a manual in a task container.
        rm -rf "$folder"/var/lib/apt/lists/* "$folder"/var/cache/apt/* "$folder"/usr/share/{doc,man,info} \
            "$folder"/usr/share/locale/* "$folder"/var/log/*
        import_image "$folder" "$BASE_IMAGE" 'CMD ["/bin/bash"]'
    fi
    # Where it fails half-way it may leave these mounted.
    umount "$folder/proc" "$folder/sys" 2>/dev/null || true
    rm -rf --one-file-system "$folder"
    image_exists "$BASE_IMAGE"
}

base_from_busybox() {
    local folder
    echo "no Debian mirror answers: the base image has busybox and nothing else"
    folder=$(mktemp -d)
    put_busybox "$folder"
    mkdir -p "$folder"/{etc,root,srv,tmp,usr,var}
    ln -s ../bin "$folder/usr/bin"
    chmod 1777 "$folder/tmp"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$folder/etc/passwd"
    echo 'root:x:0:' >"$folder/etc/group"
    import_image "$folder" "$BASE_IMAGE" 'CMD ["/bin/sh"]'
    rm -rf "$folder"
}

# make_demo_image: the base image with the demo's project at /srv/demo.git, as a server would hold it.
make_demo_image() {
    local digest folder container
    digest=$(docker image inspect --format '{{.Id}}' "$BASE_IMAGE")-$(digest_of compose/demo/project)
    is_made_from "$DEMO_IMAGE" "$digest" && return 0
    say "making the demo's image"
    folder=$(mktemp -d)
    cp -R compose/demo/project "$folder/project"
    mkdir "$folder/srv"
    (
        # Nothing of the user's own git configuration takes part.
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
        export GIT_AUTHOR_NAME=Ozma GIT_AUTHOR_EMAIL=demo@example.com
        export GIT_COMMITTER_NAME=Ozma GIT_COMMITTER_EMAIL=demo@example.com
        cd "$folder/project" || exit
        git init --quiet --initial-branch=main
        git add --all
        git commit --quiet --message "A till receipt in plain sh"
        git clone --quiet --bare . ../srv/demo.git
    )
    rm -rf "$folder/project"
    container=$(docker create "$BASE_IMAGE" /bin/true)
    tar --create --owner=0 --group=0 --numeric-owner --directory "$folder" srv |
        docker cp - "$container:/"
    docker commit --change "LABEL $DIGEST_LABEL=$digest" "$container" "$DEMO_IMAGE" >/dev/null
    docker rm --volumes "$container" >/dev/null
    rm -rf "$folder"
}
