"""`bench commit`: a burst of small batches, and one open day replaced every hour, over an object
store with simulated latencies (real time)."""

import statistics

from . import measure, place

P99_S_MAX = 1.0

REQUESTS_MAX = 26
# Of one batch on an idle table with 16 entries after the checkpoint, counted in the code of 83c927c.
REQUESTS_BEFORE = {"get": 25, "list": 6, "put": 7, "delete": 2}


def run(report):
    program = place.bench_program()
    bursts = []
    for turn in range(place.TIMES):
        one = measure.run([program, "burst"])
        found = one.last_json
        bursts.append((found, one))
        print(
            f"  burst {turn + 1}/{place.TIMES}: p50 {found['p50_s']:.2f} s, p99 {found['p99_s']:.2f} s, "
            f"{found['commits']} commits, {one.cpu_s:.1f} CPU-s", flush=True,
        )

    def middle(of):
        return statistics.median(of(found) for found, _ in bursts)

    batches = bursts[0][0]["batches"]
    report.add("burst: p99 from manifest to readable commit", middle(lambda one: one["p99_s"]), "s", f"< {P99_S_MAX}")
    report.add("burst: p50 from manifest to readable commit", middle(lambda one: one["p50_s"]), "s")
    report.add("burst: longest", middle(lambda one: one["max_s"]), "s")
    report.add("burst: rows lost", max(abs(one["rows_lost"]) for one, _ in bursts), "rows", "= 0")
    report.add(
        "burst: manifests, ready records and quarantined batches left over",
        max(one["left_in_inbox"] + one["left_ready"] + one["quarantined"] for one, _ in bursts), "objects", "= 0",
    )
    report.add("burst: commits", middle(lambda one: one["commits"]), f"entries for {batches} batches")
    for kind in bursts[0][0]["requests"]:
        report.add(f"burst: {kind} requests per batch", middle(lambda one: one["requests"].get(kind, 0)) / batches, "")
    report.add("burst: CPU of the functions", statistics.median(one.cpu_s for _, one in bursts), "CPU-s")
    hourly(report, measure.run([program, "hourly"]).last_json)


def hourly(report, found):
    what = "24 hourly replaces of one open day"
    report.add(f"{what}: rows wrong", abs(found["rows_in_lake"] - found["rows_expected"]), "rows", "= 0")
    report.add(f"{what}: live files at the end", found["files_live"], "files", "= 1")
    report.add(f"{what}: files written", found["files_written"], "files", f"<= {found['batches']}")
    report.add(f"{what}: bytes of lake files written", found["lake_bytes"], "bytes",
               peer="bytes landed", peer_value=found["landed_bytes"])
    report.add(f"{what}: requests per replace, checkpoints included", found["requests_per_batch"], "requests",
               f"<= {REQUESTS_MAX}", peer="before", peer_value=sum(REQUESTS_BEFORE.values()))
    for kind, before in REQUESTS_BEFORE.items():
        per_batch = found["requests"].get(kind, 0) / found["batches"]
        report.add(f"{what}: {kind} per replace", per_batch, "requests", peer="before", peer_value=before)
    report.add(f"{what}: median time to readable commit", found["seconds_median"], "s", f"< {P99_S_MAX}")
    report.add(f"{what}: longest", found["seconds_max"], "s")
