#!/usr/bin/env bash
# Runs the benchmarks of tests/bench, which build for release what they measure. Results:
# target/bench/NAME.json.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=env.sh
source "$ROOT/infra/dev/env.sh"
cd "$ROOT"
exec tests/bench/bench.sh "$@"
