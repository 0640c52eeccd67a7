#!/usr/bin/env bash
# Installs what is missing on a bare Debian 12 machine; says nothing and ends at once when
# everything is there. Safe to run twice at once: every download is moved into place whole.
set -euo pipefail
ROOT=${ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
# shellcheck source=env.sh
source "$ROOT/infra/dev/env.sh"

# The library inside the npm package; elsewhere than on x86-64 set DUCKDB_LIB_DIR by hand.
DUCKDB_PACKAGE=@duckdb/node-bindings-linux-x64@$DUCKDB_VERSION-r.1
DUCKDB_SHA256=3f4962cdd266eab2b479a5b5a4a6d063d279b2954ae814ed00385d553b747633

# Drives the browser in which the page is tried.
PLAYWRIGHT_SHA256=6f5a60be62a4fddfbe7d10c448d8fbd54547da3358f2f8a04211440471ee863e

main() {
  mkdir -p "$RIBERA_TOOLS"
  system_packages
  firebird_server
  rust
  duckdb_library
  browser_driver
  python_environment
}

# What must be there, and the Debian package that brings it.
system_packages() {
  local missing=()
  need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
  need cc build-essential
  need pkg-config pkg-config
  need git git
  need clang-19 clang-19
  need llvm-ar-19 llvm-19
  need mold mold
  need python3 python3
  need openssl openssl
  need setpriv util-linux
  # As a program: the shell's own does not count.
  type -P kill >/dev/null || missing+=(procps)
  # The server program only: no service is installed or started.
  [ -x /usr/sbin/mariadbd ] || command -v mariadbd >/dev/null 2>&1 || missing+=(mariadb-server-core mariadb-client-core)
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
  [ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null 2>&1 || missing+=(pgbouncer)
  # Neither of these has a service; the package with the server's program has one: see below.
  need isql-fb firebird3.0-utils
  compgen -G '/usr/lib/*/firebird/3.0/plugins.conf' >/dev/null || missing+=(firebird3.0-server-core)
  [ -d /usr/include/wasm32-wasi ] || missing+=(wasi-libc)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  need chromium chromium
  need node nodejs
  { [ -f "$DUCKDB_LIB_DIR/libduckdb.so" ] && [ -d "$PLAYWRIGHT_DIR" ]; } || need npm npm
  [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

install_packages() {
  say "apt: $*"
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "run as root: apt-get install $*"
    sudo=(sudo)
  fi
  "${sudo[@]}" apt-get update -qq >&2
  if [[ " $* " == *" postgresql "* ]]; then
    # The programs only: Debian's package would make a cluster and start it.
    "${sudo[@]}" mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | "${sudo[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  # No package may start its service meanwhile.
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null && "${sudo[@]}" chmod +x $policy && ours=yes
  fi
  local done=0
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 apt-get install -y -qq --no-install-recommends "$@" >&2 \
    || done=1
  [ -z "$ours" ] || "${sudo[@]}" rm -f $policy
  [ "$done" -eq 0 ] || fail "try: apt-get install $*"
}

# The server's program alone: installed, its package would enable and start a service.
firebird_server() {
  local place=$RIBERA_TOOLS/firebird-3.0 work
  [ -x "$place/usr/sbin/firebird" ] || [ -x /usr/sbin/firebird ] && return
  say "Firebird 3.0"
  work=$(mktemp -d "$RIBERA_TOOLS/.firebird.XXXXXX")
  download() { apt-get download -qq firebird3.0-server >&2; }
  # Once more with new lists of packages, where the machine's are old.
  (cd "$work" && { download || { install_packages && download; }; } && dpkg -x firebird3.0-server_*.deb unpacked) \
    || { rm -rf "$work"; fail "try: apt-get update; apt-get download firebird3.0-server"; }
  # Another setup may have been quicker.
  mv -T "$work/unpacked" "$place" 2>/dev/null || true
  rm -rf "$work"
}

# The pinned toolchain: as installed, through rustup, or under another name of the same version.
rust() {
  command -v cargo >/dev/null 2>&1 || bootstrap_rust
  if rust_works; then
    cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 && return
    rustup component add clippy rustfmt >&2 && return
  fi
  say "rust $RUST_VERSION"
  if command -v rustup >/dev/null 2>&1; then
    rustup toolchain install "$RUST_VERSION" --profile minimal -c clippy -c rustfmt -t wasm32-wasip2 >&2 || true
    rust_works && return
    local other
    for other in $(rustup toolchain list | awk '{print $1}'); do
      [ "$(rustc "+$other" --version | cut -d' ' -f2)" = "$RUST_VERSION" ] || continue
      export RUSTUP_TOOLCHAIN=$other
      rustup target add --toolchain "$other" wasm32-wasip2 >&2 || true
      rust_works && { echo "$other" >"$RIBERA_TOOLS/toolchain" && return; }
    done
  fi
  fail "Rust $RUST_VERSION with target wasm32-wasip2 is needed; try: rustup toolchain install $RUST_VERSION -t wasm32-wasip2"
}

rust_works() {
  [ "$(rustc --version 2>/dev/null | cut -d' ' -f2)" = "$RUST_VERSION" ] \
    && [ -d "$(rustc --print target-libdir --target wasm32-wasip2 2>/dev/null)" ]
}

# A machine without any Rust: rustup, brought by a Python package into the cache folder.
bootstrap_rust() {
  say "rustup"
  local tools=$RIBERA_TOOLS/rust-bootstrap
  python3 -m venv "$tools" && "$tools/bin/pip" install -q puccinialin==0.1.14 >&2
  XDG_CACHE_HOME=$RIBERA_TOOLS "$tools/bin/python" -m puccinialin --info-json "$tools/rust.json" >&2
  python3 - "$tools/rust.json" >"$RIBERA_TOOLS/rust.env.new" <<'PY'
import json, sys
env = json.load(open(sys.argv[1]))["env"]
print(f'export RUSTUP_HOME="{env["RUSTUP_HOME"]}" CARGO_HOME="{env["CARGO_HOME"]}"')
print(f'PATH="{env["CARGO_HOME"]}/bin:$PATH"')
PY
  mv "$RIBERA_TOOLS/rust.env.new" "$RIBERA_TOOLS/rust.env"
  # shellcheck disable=SC1091
  source "$RIBERA_TOOLS/rust.env"
  export PATH
}

# DuckDB as a shared library: building it from source takes over an hour.
duckdb_library() {
  [ -f "$DUCKDB_LIB_DIR/libduckdb.so" ] && return
  [ "$(uname -m)" = x86_64 ] || fail "set DUCKDB_LIB_DIR to a folder with libduckdb.so $DUCKDB_VERSION for $(uname -m)"
  say "DuckDB $DUCKDB_VERSION"
  local work
  work=$(mktemp -d "$RIBERA_TOOLS/.duckdb.XXXXXX")
  # A registry that stumbles once must not cost the whole set-up.
  local try
  for try in 1 2 3; do
    (cd "$work" && npm pack --silent "$DUCKDB_PACKAGE" >/dev/null && tar -xzf ./*.tgz package/libduckdb.so) && break
    [ "$try" -lt 3 ] || { rm -rf "$work"; fail "$DUCKDB_PACKAGE cannot be fetched"; }
    sleep "$((try * 5))"
  done
  echo "$DUCKDB_SHA256  $work/package/libduckdb.so" | sha256sum --check --quiet >&2 \
    || { rm -rf "$work"; fail "libduckdb.so differs from its pinned SHA-256: not used"; }
  mkdir -p "$DUCKDB_LIB_DIR"
  mv "$work/package/libduckdb.so" "$DUCKDB_LIB_DIR/libduckdb.so"
  rm -rf "$work"
}

# The library alone: the browser is Debian's.
browser_driver() {
  [ -d "$PLAYWRIGHT_DIR" ] && return
  say "playwright-core $PLAYWRIGHT_VERSION"
  local work file=playwright-core-$PLAYWRIGHT_VERSION.tgz try
  work=$(mktemp -d "$RIBERA_TOOLS/.playwright.XXXXXX")
  for try in 1 2 3; do
    (cd "$work" && npm pack --silent "playwright-core@$PLAYWRIGHT_VERSION" >/dev/null) && break
    [ "$try" -lt 3 ] || { rm -rf "$work"; fail "playwright-core cannot be fetched"; }
    sleep "$((try * 5))"
  done
  echo "$PLAYWRIGHT_SHA256  $work/$file" | sha256sum --check --quiet >&2 \
    || { rm -rf "$work"; fail "playwright-core differs from its pinned SHA-256: not used"; }
  tar -xzf "$work/$file" -C "$work" package
  # Another setup may have been quicker.
  mv -T "$work/package" "$PLAYWRIGHT_DIR" 2>/dev/null || true
  rm -rf "$work"
}

# The independent readers, in a virtual environment named after its requirements.
python_environment() {
  [ -f "$VENV/.complete" ] && return
  say "python: deltalake, polars, duckdb, ClickHouse (180 MB), pyarrow, moto, clients of SQL Server"
  (
    flock 9
    [ -f "$VENV/.complete" ] && exit
    python3 -m venv --clear "$VENV"
    "$VENV/bin/pip" install -q --disable-pip-version-check --no-deps -r "$ROOT/tests/requirements.txt" >&2
    touch "$VENV/.complete"
  ) 9>"$RIBERA_TOOLS/.venv.lock"
}

fail() {
  say "setup: $*"
  exit 1
}

main
