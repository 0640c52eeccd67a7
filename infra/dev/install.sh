#!/usr/bin/env bash
# install.sh [DIR]: puts `ribera` and `ribera-agent` into DIR (~/.local/bin by default). What they need goes with
# them into DIR/../lib/ribera: the DuckDB library and the WASM components. They then run without this repository.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=env.sh
source "$ROOT/infra/dev/env.sh"

main() {
  local bin parent lib name
  mkdir -p "${1:-$HOME/.local/bin}"
  bin=$(cd "${1:-$HOME/.local/bin}" && pwd)
  parent=$(dirname "$bin")
  lib=${parent%/}/lib/ribera
  mkdir -p "$lib/components"
  put "$DUCKDB_LIB_DIR/libduckdb.so" "$lib"
  for name in ingest coverage status; do
    put "$COMPONENTS/ribera_spin_$name.wasm" "$lib/components"
  done
  for name in ribera ribera-agent; do
    put "$BIN/$name" "$lib"
    ln -sfn "../lib/ribera/$name" "$bin/$name"
  done
  echo "$bin/ribera"
  echo "$bin/ribera-agent"
  advise "$bin"
}

# FILE FOLDER. By a rename: a program that runs keeps its file.
put() {
  [ -f "$1" ] || { say "install: $1 no existe: ./run build / does not exist: ./run build"; exit 1; }
  cp "$1" "$2/.new" && mv "$2/.new" "$2/$(basename "$1")"
}

advise() {
  [[ ":$PATH:" == *":$1:"* ]] && return
  say "$1 no está en PATH / is not on PATH:"
  say "  export PATH=\"$1:\$PATH\""
}

main "$@"
