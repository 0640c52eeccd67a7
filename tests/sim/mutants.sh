#!/usr/bin/env bash
# mutants.sh [NUMBER...]: plants the bugs of tests/sim/mutants one after the other in a copy of the tree, runs
# the simulation until a seed notices, and prints a table. A seed counts only if it is green without the bug.
# MUTANT_SEEDS (40) bounds the seeds of each.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=../../infra/dev/env.sh
source "$ROOT/infra/dev/env.sh"

seeds=${MUTANT_SEEDS:-40}
tree=$RIBERA_TOOLS/mutants/tree
target=$RIBERA_TOOLS/mutants/target
sound=$RIBERA_TOOLS/mutants/ribera-sim

copy_tree() {
  mkdir -p "$tree"
  # Only what differs is copied, with the time of now: an interrupted run may have left a planted bug.
  local file
  (cd "$ROOT" && git ls-files) | while read -r file; do
    cmp -s "$ROOT/$file" "$tree/$file" || (cd "$ROOT" && cp --parents "$file" "$tree")
  done
  # What has left the repository leaves the copy too.
  (cd "$tree" && find . -type f -printf '%P\n' | sort | comm -23 - <(cd "$ROOT" && git ls-files | sort) | xargs -r -d '\n' rm)
  # The dependencies that the tree's own build has made are of use here; links cost no room. Not our own packages: Cargo
  # writes over their files, and would take the bug's for those of the tree.
  if [ ! -d "$target/debug" ] && [ -d "$CARGO_TARGET_DIR/debug" ]; then
    mkdir -p "$target/debug"
    cp -al "$CARGO_TARGET_DIR"/debug/{deps,build,.fingerprint} "$target/debug/" 2>/dev/null || true
    find "$target/debug" -depth -name '*ribera*' -exec rm -rf {} +
  fi
}

# The copy is no repository, whatever lies around it.
plant() { GIT_CEILING_DIRECTORIES=$(dirname "$tree") git -C "$tree" apply "${@:2}" "$1"; }

# A planted bug may leave code without use, which is no one's concern here.
build() {
  (cd "$tree" && CARGO_TARGET_DIR=$target cargo build --locked --quiet --bin ribera-sim 2>"$target/errors.txt") ||
    { cat "$target/errors.txt" >&2; return 1; }
}

# The first seed that notices, how many ran, and what was violated; nothing when none did.
hunt() {
  "$target/debug/ribera-sim" --no-kept-seeds --fail-fast --json --seeds "0..$seeds" |
    "$VENV/bin/python" -c '
import json, sys
report = json.load(sys.stdin)
if report["failed_seeds"]:
    what = report["problems"][0].split("first: ", 1)[1]
    print(report["failed_seeds"][0], report["seeds"], what[:60], sep="\t")'
}

main() {
  copy_tree
  build
  cp "$target/debug/ribera-sim" "$sound"
  local patch name caught seed ran what missed=0
  printf '%-26s %-7s %5s  %s\n' 'planted bug' caught seeds 'noticed as'
  for patch in "$ROOT"/tests/sim/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    [ $# -eq 0 ] || [[ " $* " == *" ${name%%-*} "* ]] || continue
    plant "$patch"
    caught=
    if build; then caught=$(hunt) || true; else echo "mutants: $name does not build" >&2; fi
    plant "$patch" --reverse
    if [ -z "$caught" ]; then
      printf '%-26s %-7s %5s\n' "$name" NO "$seeds"
      missed=$((missed + 1))
      continue
    fi
    IFS=$'\t' read -r seed ran what <<<"$caught"
    if ! "$sound" --no-kept-seeds --seeds "$seed..$((seed + 1))" >/dev/null; then
      echo "mutants: seed $seed fails without $name too" >&2
      missed=$((missed + 1))
    fi
    printf '%-26s %-7s %5s  %s\n' "$name" yes "$ran" "$what"
  done
  return "$((missed > 0))"
}

main "$@"
