#!/usr/bin/env bash
# package.sh [linux] [windows]: the store program as stores get it, one file that needs nothing beside it,
# in target/package. Says its size, and fails over the limit.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
# shellcheck source=dev/env.sh
source "$ROOT/infra/dev/env.sh"
cd "$ROOT"

BYTES_MAX=25000000
PACKAGE=$CARGO_TARGET_DIR/package

main() {
  mkdir -p "$PACKAGE"
  local system
  for system in "${@:-linux}"; do
    case $system in
      linux) linux ;;
      windows) windows ;;
      *) fail "package: linux or windows, got $system" ;;
    esac
  done
}

linux() {
  need musl-gcc musl-tools
  build x86_64-unknown-linux-musl ribera-agent ribera-agent-linux-x86_64
  # A program without an interpreter asks the machine for no library.
  if readelf --program-headers "$PACKAGE/ribera-agent-linux-x86_64" | grep -q INTERP; then
    fail "ribera-agent-linux-x86_64 is not static"
  fi
}

windows() {
  need x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-win32
  build x86_64-pc-windows-gnu ribera-agent.exe ribera-agent-windows-x86_64.exe
}

# TARGET, the program's name, its name in the package.
build() {
  rustup target list --installed | grep -qx "$1" || rustup target add "$1"
  # Alone: with the workspace's features it would bring in what stores do not need.
  cargo build --locked --quiet --profile store --target "$1" -p ribera-agent --bin ribera-agent
  cp "$CARGO_TARGET_DIR/$1/store/$2" "$PACKAGE/$3.new"
  mv "$PACKAGE/$3.new" "$PACKAGE/$3"
  local bytes
  bytes=$(stat -c %s "$PACKAGE/$3")
  say "$PACKAGE/$3: $bytes bytes"
  [ "$bytes" -le $BYTES_MAX ] || fail "$3 has $bytes bytes, at most $BYTES_MAX are allowed"
}

need() { command -v "$1" >/dev/null 2>&1 || fail "apt-get install $2"; }

fail() {
  echo "package: $*" >&2
  exit 1
}

main "$@"
