"""What one commit costs beside a table of many store-months, and coverage after some batches more."""

import json
import os
import statistics
import subprocess
import tempfile

from . import measure, place

# Some times as many as there are versions from one checkpoint to the next: each costs the next one a request more.
BATCHES = 32
GETS_MAX, BYTES_MAX, WASM_MIB_MAX = 20, 4 << 20, 128
# Stores and months; `merged`: one file for each closed month and 12,900 stores, as `maintain` leaves them.
MERGED = ((10, 10), (1_000, 10), (10_000, 100))
NOT_MERGED = ((10, 10), (1_000, 10), (10_000, 10))
STORES, DAYS = 10_000, 400
COVERAGE_S_MAX, AGAIN_S_MAX, BATCHES_AGAIN = 1.5, 0.1, 100


def costs(report, programs):
    for shape, state in [(shape, "yes") for shape in MERGED] + [(shape, "no") for shape in NOT_MERGED]:
        cost(report, programs, *shape, state)


def cost(report, programs, stores, months, merged):
    words = [programs.bench, "commit-cost", f"--stores={stores}", f"--months={months}", f"--merged={merged}",
             f"--batches={min(BATCHES, stores)}"]
    found = measure.run(words).last_json
    commits = found["commits"]
    state = "closed months merged" if merged == "yes" else "nothing merged"
    what = f"one commit beside {found['store_months']:,} store-months, {state}, {found['files']:,} files"
    print(f"  {what}: {commits[-1]}", flush=True)

    def most(of):
        return max(map(of, commits))

    report.add(f"{what}: GET-class requests, most of {len(commits)}", most(lambda one: one["gets"]), "requests",
               f"<= {GETS_MAX}")
    for kind in ("list", "put", "delete"):
        report.add(f"{what}: {kind} requests, most", most(lambda one: one["requests"].get(kind, 0)), "requests")
    report.add(f"{what}: bytes read and written, most", most(lambda one: one["read_bytes"] + one["written_bytes"]),
               "bytes", f"<= {BYTES_MAX}")
    report.add(f"{what}: bytes read, median", statistics.median(one["read_bytes"] for one in commits), "bytes")
    report.add(f"{what}: time, median", statistics.median(one["seconds"] for one in commits), "s")
    for name, due in (("", "no"), (" that writes a checkpoint too", "yes")):
        mib = wasm_mib(programs, words, due)
        if mib is None:
            report.add(f"{what}: WASM calls{name} that died over their limits", 1, "calls", "= 0")
        else:
            report.add(f"{what}: memory of the WASM call{name}", mib, "MiB", f"<= {WASM_MIB_MAX}")


def wasm_mib(programs, words, due):
    """The highest linear memory of the component over the same table and one batch, in a folder;
    `None` when the host ended the call."""
    with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
        lake = os.path.join(folder, "lake")
        measure.run([*words, "--batches=1", f"--due={due}", f"--folder={lake}"])
        done = subprocess.run([programs.host, "--lake", lake, "--json", "sweep"], check=False, capture_output=True,
                              text=True, env={**os.environ, "RIBERA_LOG": "warn,ribera=debug"})
    swept = json.loads(done.stdout)
    if swept["calls_failed"]:
        return None
    if swept["committed"] != 1:
        raise RuntimeError(f"the sweep committed other than one batch: {done.stdout}")
    told = [json.loads(line) for line in done.stderr.splitlines() if '"memory_mib"' in line]
    return max(int(one["memory_mib"]) for one in told if one.get("function") == "ingest")


def coverage(report, programs):
    words = [programs.bench, "coverage", f"--stores={STORES}", f"--days={DAYS}", f"--batches={BATCHES_AGAIN}"]
    runs = [measure.run(words).last_json for _ in range(place.TIMES)]

    if any(one["days_complete"] != one["days_due"] or one["days_complete_again"] < one["days_complete"] for one in runs):
        raise RuntimeError(f"coverage: days are not complete: {runs}")

    def best(key):
        return min(one[key] for one in runs)

    what = f"coverage of {STORES:,} stores x {DAYS} days"
    report.add(f"{what}: computed", best("compute_s"), "s", f"<= {COVERAGE_S_MAX}")
    report.add(f"{what}: computed and saved", best("refresh_s"), "s")
    report.add(f"{what}: computed and saved again after {BATCHES_AGAIN} batches", best("refresh_again_s"), "s",
               f"<= {AGAIN_S_MAX}")
