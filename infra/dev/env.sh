# shellcheck shell=bash
# Sourced by `run`: where things are. Downloads live in one cache folder outside the repository.

RIBERA_TOOLS=${RIBERA_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/ribera}
RUST_VERSION=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")
DUCKDB_VERSION=1.5.6
DUCKDB_LIB_DIR=${DUCKDB_LIB_DIR:-$RIBERA_TOOLS/duckdb-$DUCKDB_VERSION}
PLAYWRIGHT_VERSION=1.65.1
PLAYWRIGHT_DIR=$RIBERA_TOOLS/playwright-core-$PLAYWRIGHT_VERSION
VENV=$RIBERA_TOOLS/venv-$(sha256sum <"$ROOT/tests/requirements.txt" | cut -c1-12)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
# Programs are run as built for development; their dependencies are optimised there too.
BIN=$CARGO_TARGET_DIR/debug
COMPONENTS=$CARGO_TARGET_DIR/wasm32-wasip2/release
export RIBERA_TOOLS RUST_VERSION DUCKDB_VERSION DUCKDB_LIB_DIR PLAYWRIGHT_VERSION PLAYWRIGHT_DIR VENV CARGO_TARGET_DIR BIN COMPONENTS
export LD_LIBRARY_PATH=$DUCKDB_LIB_DIR${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

# A toolchain that setup had to put into the cache itself.
if ! command -v cargo >/dev/null 2>&1; then
  if [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH=$HOME/.cargo/bin:$PATH
  elif [ -f "$RIBERA_TOOLS/rust.env" ]; then
    # shellcheck disable=SC1091
    source "$RIBERA_TOOLS/rust.env"
  fi
fi
# Set by setup when the pinned version is installed under another name only.
[ -f "$RIBERA_TOOLS/toolchain" ] && [ -z "${RUSTUP_TOOLCHAIN:-}" ] && RUSTUP_TOOLCHAIN=$(cat "$RIBERA_TOOLS/toolchain") && export RUSTUP_TOOLCHAIN
export PATH

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
