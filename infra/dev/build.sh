#!/usr/bin/env bash
# build.sh [all | demo | programs | components]: builds `ribera`, `ribera-agent`, the simulation and
# the WASM components that `ribera up` runs; `demo` leaves the simulation out.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=env.sh
source "$ROOT/infra/dev/env.sh"
cd "$ROOT"

programs=(--bin ribera --bin ribera-agent)
components=(-p ribera-spin-ingest -p ribera-spin-coverage -p ribera-spin-status)
wanted=${1:-all}
case $wanted in
  all | programs) programs+=(--bin ribera-sim) ;;
  demo | components) ;;
  *) echo "build: all, demo, programs or components, got $wanted" >&2; exit 2 ;;
esac

# A first build takes long: it is said at once, and cargo shows how far it is.
quiet=(--quiet)
if [ ! -x "$BIN/ribera" ] || [ ! -f "$COMPONENTS/ribera_spin_status.wasm" ]; then
  quiet=()
  say "Primera compilación: unas 800 bibliotecas, de 12 a 20 minutos con 2 procesadores; las siguientes tardan segundos."
  say "First build: some 800 libraries, 12 to 20 minutes with 2 processors; later ones take seconds."
fi
step() { [ ${#quiet[@]} -gt 0 ] || say "$*"; }

if [ "$wanted" != components ]; then
  step "1/2 ribera, ribera-agent"
  cargo build --locked "${quiet[@]}" "${programs[@]}"
fi
if [ "$wanted" != programs ]; then
  step "2/2 WASM: ingest, coverage, status"
  cargo build --locked "${quiet[@]}" --release --target wasm32-wasip2 "${components[@]}"
fi
