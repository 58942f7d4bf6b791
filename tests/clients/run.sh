#!/usr/bin/env bash
# Real clients of other projects send traces and logs to Watchpost and find them again.
#
#   run.sh                 starts a server of its own, in a temporary directory, on free ports
#   run.sh KEY=ADDRESS …   tests a running one; the keys are those of the configuration:
#                          jaeger.agent.compact, jaeger.agent.binary, jaeger.agent.sampling,
#                          jaeger.collector.http, jaeger.query.http, otlp.http, otlp.grpc,
#                          zipkin.listen, loki.listen
#
# WATCHPOST        program to start; else the one that make built
# WATCHPOST_CLIENTS  where npm and pip install to, once for each version of the lists here
#
# Ends with 1 when what a client sent came back different. What a machine cannot run (no node,
# no python, no network to install from) is left out, and said.
set -eu -o pipefail
cd "$(dirname "$0")"

cache=${WATCHPOST_CLIENTS:-$HOME/.cache/watchpost/clients}
program=${WATCHPOST:-${CARGO_TARGET_DIR:-$HOME/.cache/watchpost/target}/debug/watchpost}
keys=(jaeger.agent.compact jaeger.agent.binary jaeger.agent.sampling
    jaeger.collector.http jaeger.query.http otlp.http otlp.grpc zipkin.listen loki.listen)
declare -A address
temporary=$(mktemp -d)
server=

finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$temporary"
}
trap finish EXIT

# A server on free ports says in its log which it got.
start() {
    [ -x "$program" ] || { echo "clients: no program $program; run make build" >&2; exit 1; }
    local key arguments=(--storage-path "$temporary/data" --set jaeger.collector.grpc=127.0.0.1:0
        --set jaeger.agent.zipkin=127.0.0.1:0 --set jaeger.collector.admin=127.0.0.1:0
        --set jaeger.query.grpc=127.0.0.1:0 --set jaeger.storage.grpc=127.0.0.1:0)
    for key in "${keys[@]}"; do arguments+=(--set "$key=127.0.0.1:0"); done
    : >"$temporary/config.toml"
    "$program" serve --config "$temporary/config.toml" "${arguments[@]}" >"$temporary/log" 2>&1 &
    server=$!
    for _ in $(seq 300); do
        for key in "${keys[@]}"; do
            address[$key]=$(sed -n "s/.*listening: ${key//./\\.} address=//p" "$temporary/log")
        done
        [[ " ${address[*]} " == *'  '* || ${#address[*]} -lt ${#keys[@]} ]] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$temporary/log" >&2
    echo 'clients: the server did not start' >&2
    exit 1
}

# install NAME LIST… -- COMMAND…: runs the command in a folder of the cache that is named
# after what the lists say; a folder is there only when the command succeeded.
install() {
    local name=$1 lists=()
    shift
    while [ "$1" != -- ]; do lists+=("$PWD/$1"); shift; done
    shift
    folder=$cache/$name-$(cat "${lists[@]}" | sha256sum | cut -c1-12)
    [ -e "$folder/complete" ] && return 0
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "${lists[@]}" "$folder"
    if (cd "$folder" && "$@") >"$temporary/install" 2>&1; then
        touch "$folder/complete"
        return 0
    fi
    tail -n 3 "$temporary/install" | sed 's/^/    /'
    rm -rf "$folder"
    return 1
}

npm_install() { timeout 240 npm ci --ignore-scripts --no-audit --no-fund; }

pip_install() {
    python3 -m venv environment &&
        timeout 240 environment/bin/pip install --disable-pip-version-check -r requirements.txt
}

skipped() { echo "skipped: $1"; }

if [ $# -eq 0 ]; then
    start
else
    for argument in "$@"; do address[${argument%%=*}]=${argument#*=}; done
    for key in "${keys[@]}"; do
        [ -n "${address[$key]:-}" ] || { echo "clients: no address of $key" >&2; exit 2; }
    done
fi

export WATCHPOST_AGENT_COMPACT=${address[jaeger.agent.compact]}
export WATCHPOST_AGENT_BINARY=${address[jaeger.agent.binary]}
export WATCHPOST_SAMPLING=${address[jaeger.agent.sampling]}
export WATCHPOST_COLLECTOR=http://${address[jaeger.collector.http]}
export WATCHPOST_JAEGER=http://${address[jaeger.query.http]}
export WATCHPOST_OTLP_HTTP=http://${address[otlp.http]}
export WATCHPOST_OTLP_GRPC=${address[otlp.grpc]}
export WATCHPOST_ZIPKIN=http://${address[zipkin.listen]}
export WATCHPOST_LOKI=http://${address[loki.listen]}
# A proxy of the machine is not for these addresses.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

failed=0
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    skipped 'npm clients: node or npm is not installed'
elif ! install node package.json package-lock.json -- npm_install; then
    skipped 'npm clients: npm could not install them (above)'
else
    NODE_PATH=$folder/node_modules timeout 60 node jaeger_client.js || failed=1
    NODE_PATH=$folder/node_modules timeout 60 node opentelemetry.js || failed=1
    NODE_PATH=$folder/node_modules timeout 60 node zipkin.js || failed=1
    NODE_PATH=$folder/node_modules timeout 60 node opentelemetry_logs.js || failed=1
fi

if ! command -v python3 >/dev/null; then
    skipped 'PyPI clients: python3 is not installed'
elif ! install python requirements.txt -- pip_install; then
    skipped 'PyPI clients: python3 -m venv or pip could not install them (above)'
else
    timeout 60 "$folder/environment/bin/python" -W ignore::DeprecationWarning opentelemetry_exporters.py || failed=1
    timeout 60 "$folder/environment/bin/python" -W ignore::DeprecationWarning opentelemetry_logs.py || failed=1
fi

# Its own server, and program: the one that is tested may be elsewhere.
if command -v python3 >/dev/null && [ -x "$program" ]; then
    if ! install bucket bucket/requirements.txt -- pip_install; then
        skipped 'backups in a bucket: python3 -m venv or pip could not install moto (above)'
    else
        WATCHPOST_PROGRAM=$program timeout 120 "$folder/environment/bin/python" backup_bucket.py || failed=1
    fi
fi

if [ "$failed" -ne 0 ]; then
    if [ -n "$server" ]; then cat "$temporary/log" >&2; fi
    echo 'clients: what came back is not what was sent' >&2
fi
exit "$failed"
