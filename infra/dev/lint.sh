#!/usr/bin/env bash
# What needs no argument in review: format, clippy without warnings, the tidy rules, and the
# dependency policy where cargo-deny is installed.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=env.sh
source "$ROOT/infra/dev/env.sh"
cd "$ROOT"

cargo fmt --all --check
"$VENV/bin/python" tests/tidy.py
cargo clippy --locked --quiet --all-targets -- -D warnings
cargo clippy --locked --quiet --release --target wasm32-wasip2 \
  -p ribera-spin-adapter -p ribera-spin-ingest -p ribera-spin-coverage -p ribera-spin-status -- -D warnings
# A store's machine has neither: built alone, the agent needs no library beside the system's.
if cargo tree --locked -p ribera-agent -e normal,build --prefix none | grep -E '^(lib)?(duckdb|wasmtime)'; then
  echo "lint: ribera-agent must not depend on these; see: cargo tree -p ribera-agent -i NAME" >&2
  exit 1
fi
if cargo deny --version >/dev/null 2>&1; then
  cargo deny --locked check bans licenses sources
fi
say "lint: clean"
