#!/usr/bin/env bash
# Runs the benchmarks: bench.sh [NAME...]. Without a name: all of them, one after another.
# Peers and measured data stay in a cache folder outside the repository (RIBERA_BENCH_CACHE).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH=${DUCKDB_LIB_DIR:+$DUCKDB_LIB_DIR:}${LD_LIBRARY_PATH:-}
exec python3 -B "$here/bench.py" "$@"
