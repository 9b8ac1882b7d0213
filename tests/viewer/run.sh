#!/usr/bin/env bash
# The viewer's tests: its pure parts, then the page in a headless Chromium, against a mock and against real nodes.
#
#   STORAGE_BIN=target/debug/storage tests/viewer/run.sh
#
# Installs what is missing: Chromium from Debian (as root), the packages of package-lock.json. Node 20 has to be there.
set -euo pipefail

if [[ -z "${STORAGE_BIN:-}" ]]; then
    echo "STORAGE_BIN must name the storage binary, as in STORAGE_BIN=target/debug/storage $0" >&2
    exit 2
fi
STORAGE_BIN="$(realpath "$STORAGE_BIN")"
export STORAGE_BIN
cd "$(dirname "$0")"

if ! command -v node >/dev/null || (( $(node -p 'process.versions.node.split(".")[0]') < 20 )); then
    echo "Node 20 or later is needed, from https://nodejs.org." >&2
    exit 2
fi
if [[ -z "${CHROMIUM:-}" ]]; then
    CHROMIUM="$(command -v chromium || command -v google-chrome || true)"
    if [[ -z "$CHROMIUM" ]]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fonts-dejavu-core >/dev/null
        CHROMIUM="$(command -v chromium)"
    fi
fi
export CHROMIUM
if [[ ! -e node_modules/.package-lock.json || package-lock.json -nt node_modules/.package-lock.json ]]; then
    npm ci --silent --no-audit --no-fund
    touch node_modules/.package-lock.json
fi

node --test ../../viewer/tests/
# One browser at a time: the machine has few cores, and smoothness is among what is measured. The timeout is a file's.
node --test --test-concurrency=1 --test-timeout=900000 mock.test.mjs nodes.test.mjs
