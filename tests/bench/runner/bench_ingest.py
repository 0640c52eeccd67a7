"""`bench ingest`: rows per second that one call validates, encodes anew and commits, native and
as the WASM component in its host, on the same month-sized batches."""

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
        runs = measure.alternate(
            {
                "native": on_copy(seed, folder, lambda lake: [bench, "sweep", f"--folder={lake}"]),
                "WASM": on_copy(seed, folder, lambda lake: [host, "--lake", lake, "--json", "sweep"]),
            },
            place.TIMES,
        )
    native = measure.median(runs["native"], lambda one: ROWS / one.extra["seconds"])
    wasm = measure.median(runs["WASM"], lambda one: ROWS / one.extra["seconds"])
    shape = f"{STORES} batches of {ROWS_PER_BATCH} rows x 11 columns"
    report.add(f"native, {shape}", native, "rows/s", f">= {ROWS_PER_S_MIN}")
    report.add("WASM, the same", wasm, "rows/s", peer="native", peer_value=native, ratio_target=f">= {WASM_SHARE_MIN}")
    for name, of in runs.items():
        cpu = measure.median(of, lambda one: one.cpu_s)
        report.add(f"{name}: CPU per million rows", cpu / ROWS * 1e6, "CPU-s")
        report.add(f"{name}: resident memory", measure.median(of, lambda one: one.rss_bytes) / 2**20, "MB")


def on_copy(seed, folder, command):
    """A run of `command` on a fresh copy of the landed batches."""

    def once():
        lake = os.path.join(folder, "lake")
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(seed, lake)
        one = measure.run(command(lake))
        one.extra["seconds"] = one.wall_s
        require_clean(lake)
        return one

    return once


def require_clean(lake):
    """Every batch committed: nothing waits, nothing was refused."""
    for folder in ("inbox", "quarantine"):
        left = sum(len(files) for _, _, files in os.walk(os.path.join(lake, folder)))
        if left:
            raise RuntimeError(f"{left} objects in {folder}/ of {lake}")
