#!/usr/bin/env bash
# The viewer's tests: its pure parts, then the page in a headless Chromium, against a mock and against real nodes.
#
#   STORAGE_BIN=target/debug/storage tests/viewer/run.sh
#
# Installs what is missing: Node 20 and Chromium from Debian (as root), the packages of package-lock.json.
set -euo pipefail

if [[ -z "${STORAGE_BIN:-}" ]]; then
    echo "STORAGE_BIN must name the storage binary, as in STORAGE_BIN=target/debug/storage $0" >&2
    exit 2
fi
STORAGE_BIN="$(realpath "$STORAGE_BIN")"
export STORAGE_BIN
cd "$(dirname "$0")"

# Exit code 77: this machine has not what is needed, and it cannot be installed here.
lacking() {
    echo "The viewer's tests cannot be run here: $1." >&2
    exit 77
}
install() {
    local root=()
    if (( EUID != 0 )); then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || lacking "$* is missing, and only root may install it"
        root=(sudo -n)
    fi
    command -v apt-get >/dev/null || lacking "$* is missing, and there is no apt-get to install it"
    echo "Installing $*." >&2
    "${root[@]}" apt-get update -qq &&
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        lacking "$* could not be installed"
}

command -v npm >/dev/null || install nodejs npm
if (( $(node -p 'process.versions.node.split(".")[0]') < 20 )); then
    lacking "Node is older than 20; a newer one is at https://nodejs.org"
fi
if [[ -z "${CHROMIUM:-}" ]]; then
    find_browser() { command -v chromium || command -v google-chrome || true; }
    CHROMIUM="$(find_browser)"
    if [[ -z "$CHROMIUM" ]]; then
        install chromium fonts-dejavu-core
        CHROMIUM="$(find_browser)"
    fi
fi
export CHROMIUM
if [[ ! -e node_modules/.package-lock.json || package-lock.json -nt node_modules/.package-lock.json ]]; then
    npm ci --silent --no-audit --no-fund || lacking "the packages of package-lock.json could not be fetched"
    touch node_modules/.package-lock.json
fi

node --test ../../viewer/tests/
# One browser at a time: the machine has few cores, and smoothness is among what is measured. The timeout is a file's.
node --test --test-concurrency=1 --test-timeout=900000 mock.test.mjs nodes.test.mjs
