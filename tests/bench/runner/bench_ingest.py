"""`bench ingest`: rows per second that one core validates, encodes again and commits, native and as
the WASM component in its host, on the same month-sized batches.

The rate is by CPU seconds of the whole process (the host's own start counts), so that other work on
the machine does not pass for ours; the time on the wall is told beside it."""

import os
import shutil
import tempfile

from . import measure, place

STORES, ROWS_PER_BATCH = 6, 372_000
ROWS = STORES * ROWS_PER_BATCH
ROWS_PER_S_MIN, WASM_SHARE_MIN = 1_000_000, 0.40


def run(report):
    bench, host = place.bench_program(), place.host_program()
    with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
        seed = os.path.join(folder, "seed")
        measure.run([bench, "generate", f"--folder={seed}", f"--stores={STORES}", "--months=1", f"--rows={ROWS}"])
        native = on_copy(seed, folder, lambda lake: [bench, "sweep", f"--folder={lake}"])
        wasm = on_copy(seed, folder, lambda lake: [host, "--lake", lake, "--json", "sweep"])
        # A component is compiled to machine code by its first run, once for all calls to come.
        compiled = wasm()
        runs = measure.alternate({"native": native, "WASM": wasm}, place.TIMES)
    rates = {name: measure.median(of, lambda one: ROWS / one.cpu_s) for name, of in runs.items()}
    shape = f"{STORES} batches of {ROWS_PER_BATCH} rows x 11 columns"
    report.add(f"native, {shape}", rates["native"], "rows/CPU-s", f">= {ROWS_PER_S_MIN}")
    report.add("WASM, the same", rates["WASM"], "rows/CPU-s", None, "native", rates["native"], f">= {WASM_SHARE_MIN}")
    for name, of in runs.items():
        report.add(f"{name}: CPU per million rows", measure.median(of, lambda one: one.cpu_s) / ROWS * 1e6, "CPU-s")
        report.add(f"{name}: by the clock on the wall", measure.median(of, lambda one: ROWS / one.wall_s), "rows/s")
        report.add(f"{name}: resident memory", measure.median(of, lambda one: one.rss_bytes) / 2**20, "MB")
    report.add("WASM: first run of all, with compilation", compiled.wall_s, "s")


def on_copy(seed, folder, command):
    """A run of `command` on a fresh copy of the landed batches."""

    def once():
        lake = os.path.join(folder, "lake")
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(seed, lake)
        one = measure.run(command(lake))
        require_clean(lake)
        return one

    return once


def require_clean(lake):
    """Every batch committed: nothing waits, nothing was refused."""
    for folder in ("inbox", "quarantine"):
        left = sum(len(files) for _, _, files in os.walk(os.path.join(lake, folder)))
        if left:
            raise RuntimeError(f"{left} objects in {folder}/ of {lake}")
