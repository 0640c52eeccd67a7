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
TIMES = int(os.environ.get("RIBERA_BENCH_TIMES", "3"))


def report(name):
    return Report(name, os.path.join(REPOSITORY, "target"))


def cache(name):
    """A folder of the cache, made when it is not there."""
    folder = os.path.join(CACHE, name)
    os.makedirs(folder, exist_ok=True)
    return folder


def program(package, binary):
    """The path of a program of ours, built for release when it is not up to date."""
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "-p", package, "--bin", binary],
        cwd=REPOSITORY, check=True, stdout=sys.stderr,
    )
    return os.path.join(TARGET, "release", binary)


def bench_program():
    return program("ribera-tests", "ribera-bench")


def host_program():
    """`ribera` with the WASM components beside it, where it looks for them."""
    components = [word for name in ("ingest", "coverage", "status") for word in ("-p", f"ribera-spin-{name}")]
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "--target", "wasm32-wasip2", *components],
        cwd=REPOSITORY, check=True, stdout=sys.stderr,
    )
    return program("ribera", "ribera")
