"""Where things are: repository, build output, cache, programs."""

import os
import subprocess
import sys

from .report import Report

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(REPOSITORY, "target")
CACHE = os.environ.get("RIBERA_BENCH_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ribera", "bench"
)
BUILDS = os.environ.get("RIBERA_BENCH_BUILD") != "no"
TIMES = int(os.environ.get("RIBERA_BENCH_TIMES", "3"))


def report(name):
    return Report(name, os.path.join(REPOSITORY, "target"))


def cache(name):
    """A folder of the cache, made when it is not there."""
    folder = os.path.join(CACHE, name)
    os.makedirs(folder, exist_ok=True)
    return folder


def agent_program():
    """The store program as stores get it: one static file."""
    if BUILDS:
        package = os.path.join(REPOSITORY, "infra", "package.sh")
        subprocess.run([package, "linux"], env={**os.environ, "CARGO_TARGET_DIR": TARGET}, check=True, stdout=sys.stderr)
    return os.path.join(TARGET, "package", "ribera-agent-linux-x86_64")


def bench_program():
    return build("ribera-bench")


def host_program():
    """`ribera` with the WASM components beside it, where it looks for them."""
    components = [word for name in ("ingest", "coverage", "status") for word in ("-p", f"ribera-spin-{name}")]
    cargo(["--target", "wasm32-wasip2", *components])
    return build("ribera")


def tests_python():
    """The Python of the tests' readers, which `./run` installs."""
    venv = os.environ.get("VENV")
    if not venv:
        raise RuntimeError("VENV is not set: start it with ./run bench")
    return os.path.join(venv, "bin", "python")


def build(binary):
    """The path of a program of ours, built for release when it is not up to date, with the features
    that the whole workspace asks for, as the demo and tests do."""
    cargo(["--bin", binary])
    return os.path.join(TARGET, "release", binary)


def cargo(words):
    if not BUILDS:
        return
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", *words], cwd=REPOSITORY, check=True, stdout=sys.stderr
    )
