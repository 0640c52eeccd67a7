#!/usr/bin/env bash
# test.sh test|soak [--list | SUITE...]: every suite, or those named; seconds of each at the end.
# `test` has reduced counts, `soak` the full ones. RIBERA_SEED repeats a random run.
set -uo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=env.sh
source "$ROOT/infra/dev/env.sh"
cd "$ROOT" || exit

SUITES=(lint build unit sim judge browser e2e foreign crash)
case ${1:-test} in
  test) KILLS=20 SEEDS=20 STORES=6 ;;
  soak) KILLS=500 SEEDS=200 STORES=20 SUITES+=(mutants fuzz package) ;;
  *) echo "test.sh: test or soak, got $1" >&2; exit 2 ;;
esac
shift

lint() { infra/dev/lint.sh; }

unit() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-fail-fast --status-level fail --final-status-level fail
  else
    cargo test --locked --quiet --no-fail-fast
  fi
}

build() { infra/dev/build.sh; }

sim() {
  local program=$BIN/ribera-sim
  # Many seeds are worth an optimised build.
  if [ "$SEEDS" -gt 100 ]; then
    cargo build --locked --quiet --release --bin ribera-sim || return
    program=$CARGO_TARGET_DIR/release/ribera-sim
  fi
  "$program" --seeds "0..$SEEDS"
}

# Planted bugs that the simulation must notice.
mutants() { tests/sim/mutants.sh; }

# Random bytes for whatever reads what a store or another program wrote: FUZZ_SECONDS for each target.
fuzz() {
  local targets target folder=$CARGO_TARGET_DIR/fuzz tools=$RIBERA_TOOLS/cargo-fuzz
  if ! cargo +nightly --version >/dev/null 2>&1; then
    skip "the fuzzer needs a nightly toolchain; try: rustup toolchain install nightly --profile minimal"
    return
  fi
  PATH=$tools/bin:$PATH
  if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    cargo install --locked --quiet --root "$tools" cargo-fuzz@0.13.2 || return
  fi
  targets=$(cargo +nightly fuzz list --fuzz-dir tests/fuzz) || return
  cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir "$folder" || return
  for target in $targets; do
    mkdir -p "$folder/corpus/$target" "$folder/crashes/$target"
    say "fuzz $target"
    # What it finds goes to the cache; what we wrote is read only.
    cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir "$folder" "$target" \
      "$folder/corpus/$target" "tests/fuzz/seeds/$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -max_len=16384 \
      -timeout=20 -artifact_prefix="$folder/crashes/$target/" -print_final_stats=1 -verbosity=0 || return
  done
}

judge() { python tests/judge/judge_test.py; }

browser() { python tests/browser/browser_test.py; }

e2e() { python tests/e2e/run.py --stores "$STORES"; }

# Other programs that write to a table of ours.
foreign() { python tests/e2e/foreign.py; }

crash() { python tests/e2e/crash.py --kills "$KILLS" --stores "$STORES"; }

# The store program as stores get it, static and for Windows, in place of the one built here.
package() {
  local alone=every_kind_of_database_gives_the_same_lake_in_one_run
  infra/package.sh linux windows || return
  RIBERA_AGENT=$CARGO_TARGET_DIR/package/ribera-agent-linux-x86_64 python tests/e2e/run.py "$alone" || return
  # Debian keeps it out of PATH.
  local wine=/usr/lib/wine/wine64
  [ -x $wine ] || apt-get install -y -qq --no-install-recommends wine64 || return
  local beside=$CARGO_TARGET_DIR/package/wine
  mkdir -p "$beside" && cp "$CARGO_TARGET_DIR/package/ribera-agent-windows-x86_64.exe" "$beside" || return
  x86_64-w64-mingw32-gcc -shared -o "$beside/bcryptprimitives.dll" tests/wine/bcryptprimitives.c -ladvapi32 || return
  # Wine keeps its Windows in a folder that it makes first.
  export WINEPREFIX=$RIBERA_TOOLS/wine WINEDEBUG=-all
  python tests/wine/service.py "$wine" "$beside/ribera-agent-windows-x86_64.exe" || return
  RIBERA_AGENT="$wine $beside/ribera-agent-windows-x86_64.exe" python tests/e2e/run.py "$alone"
}

# Says why a suite cannot run here; it is no success.
skip() { SKIPPED=$1; say "skipped: $1"; }

python() { "$VENV/bin/python" -B "$@"; }

main() {
  local suite failed=() report=()
  for suite in "$@"; do
    say "== $suite"
    local begin=$SECONDS verdict=ok
    SKIPPED=
    "$suite" || { verdict=FAILED; failed+=("$suite"); }
    [ -z "$SKIPPED" ] || verdict="skipped: $SKIPPED"
    report+=("$(printf '%-8s %6d s  %s' "$suite" $((SECONDS - begin)) "$verdict")")
    # Nothing later can run without the programs.
    [ "$suite/$verdict" = build/FAILED ] && break
  done
  say "== seconds per suite"
  printf '%s\n' "${report[@]}"
  [ ${#failed[@]} -eq 0 ] || { say "failed: ${failed[*]}"; exit 1; }
}

if [ "${1:-}" = --list ]; then
  printf '%s\n' "${SUITES[@]}"
  exit
fi
for suite in "$@"; do
  [[ " ${SUITES[*]} " == *" $suite "* ]] || { echo "no such suite: $suite; there are: ${SUITES[*]}" >&2; exit 2; }
done
if [ $# -eq 0 ]; then main "${SUITES[@]}"; else main "$@"; fi
