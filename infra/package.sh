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
  # Addresses to mend at the start take a byte and a half in place of 24, equal functions stand once.
  build x86_64-unknown-linux-musl ribera-agent ribera-agent-linux-x86_64 \
    -C link-arg=-fuse-ld=mold -C link-arg=-Wl,-z,pack-relative-relocs -C link-arg=-Wl,--icf=safe
  # A program without an interpreter asks the machine for no library.
  if readelf --program-headers "$PACKAGE/ribera-agent-linux-x86_64" | grep -q INTERP; then
    fail "ribera-agent-linux-x86_64 is not static"
  fi
}

windows() {
  need x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-win32
  build x86_64-pc-windows-gnu ribera-agent.exe ribera-agent-windows-x86_64.exe
}

# TARGET, the program's name, its name in the package, words for the last step of the compiler.
build() {
  local target=$1 program=$2 packaged=$3 bytes
  shift 3
  rustup target list --installed | grep -qx "$target" || rustup target add "$target"
  # Alone: with the workspace's features it would bring in what stores do not need.
  cargo rustc --locked --quiet --profile store --target "$target" -p ribera-agent --bin ribera-agent -- "$@"
  bytes=$(stat -c %s "$CARGO_TARGET_DIR/$target/store/$program")
  [ "$bytes" -le $BYTES_MAX ] || fail "$program has $bytes bytes, at most $BYTES_MAX are allowed"
  cp "$CARGO_TARGET_DIR/$target/store/$program" "$PACKAGE/$packaged.new"
  mv "$PACKAGE/$packaged.new" "$PACKAGE/$packaged"
  say "$PACKAGE/$packaged: $bytes bytes"
}

need() {
  command -v "$1" >/dev/null 2>&1 && return
  say "apt: $2"
  apt-get install -y -qq --no-install-recommends "$2" >&2 || fail "as root: apt-get install $2"
}

fail() {
  echo "package: $*" >&2
  exit 1
}

main "$@"
