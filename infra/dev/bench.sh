#!/usr/bin/env bash
# Builds for release, then runs the benchmarks of tests/bench. Results: target/bench/NAME.json.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=env.sh
source "$ROOT/infra/dev/env.sh"
cd "$ROOT"
cargo build --locked --quiet --release --bins
infra/dev/build.sh components
exec tests/bench/bench.sh "$@"
