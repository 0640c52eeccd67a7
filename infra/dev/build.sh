#!/usr/bin/env bash
# Builds `ribera`, `ribera-agent` and the WASM components that `ribera up` runs.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=env.sh
source "$ROOT/infra/dev/env.sh"
cd "$ROOT"

components=(-p ribera-spin-ingest -p ribera-spin-coverage -p ribera-spin-status)
case ${1:-all} in
  all | programs) cargo build --locked --quiet --bin ribera --bin ribera-agent --bin ribera-sim ;;&
  all | components) cargo build --locked --quiet --release --target wasm32-wasip2 "${components[@]}" ;;&
  all | programs | components) ;;
  *) echo "build: all, programs or components, got $1" >&2; exit 2 ;;
esac
