#!/bin/sh
# Starts the sidecar that lies beside this script: /agent in a task container, / in the image itself.
# Stock workers call it with the Oz arguments ("agent run …", directly or as `/bin/sh /agent/entrypoint.sh`).
set -eu
here=${0%/*}
[ -x "$here/ozma-sidecar" ] || here=/agent
case "${1:-}" in
    agent | run | "") exec "$here/ozma-sidecar" stock "$@" ;;
    *) exec "$here/ozma-sidecar" "$@" ;;
esac
