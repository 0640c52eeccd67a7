"""`bench host`: what the host itself adds to each call of a WASM component: a fresh instance, and a
call that has nothing to do. Measured by the host (its log) and by an HTTP client beside it. Then
coverage of a large chain and the pages that show it, native, over a store in memory."""

import http.client
import json
import os
import statistics
import subprocess
import tempfile
import time

from . import mariadb, measure, place

CALLS, WARM_UP = 300, 20
START_MS_MAX = 2.0
STORES, DAYS = 10_000, 400
COVERAGE_S_MAX, PAGE_MS_MAX = 1.0, 50


def run(report):
    host = place.host_program()
    with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
        log = os.path.join(folder, "log")
        seen_ms = called(host, folder, log)
        told = [json.loads(line) for line in open(log, encoding="utf-8") if '"start_ms"' in line]
    of_sweeps = [one for one in told if one.get("function") == "ingest"][WARM_UP:]
    start_ms = [float(one["start_ms"]) for one in of_sweeps]
    report.add("WASM: start of a fresh instance, median", statistics.median(start_ms), "ms", f"< {START_MS_MAX}")
    report.add("WASM: start of a fresh instance, p99", quantile(start_ms, 0.99), "ms")
    report.add("WASM: whole call of ingest on an empty inbox, median",
               statistics.median(float(one["total_ms"]) for one in of_sweeps), "ms")
    report.add("the same as an HTTP client sees it, median", statistics.median(seen_ms), "ms")
    report.add("memory of such a call", statistics.median(float(one["memory_mib"]) for one in of_sweeps), "MiB")
    coverage(report)


def coverage(report):
    """Small beside large: the pages must not depend on the number of stores."""
    program = place.bench_program()

    def of(stores, times):
        runs = [measure.run([program, "coverage", f"--stores={stores}", f"--days={DAYS}"]) for _ in range(times)]
        return [one.last_json for one in runs]

    def middle(found, *keys):
        values = []
        for one in found:
            for key in keys:
                one = one[key]
            values.append(one)
        return statistics.median(values)

    small, large = of(STORES // 100, place.TIMES), of(STORES, place.TIMES)
    what = f"coverage of {STORES} stores x {DAYS} days"
    report.add(f"{what}: computed", middle(large, "compute_s"), "s", f"< {COVERAGE_S_MAX}")
    report.add(f"{what}: computed and saved", middle(large, "refresh_s"), "s")
    report.add(f"{what}: days that are not complete", max(one["days_due"] - one["days_complete"] for one in large),
               "store-days", "= 0")
    for name, key in (("page", "page_ms"), ("summary", "summary_ms"), ("calendar of a store", "calendar_ms")):
        report.add(f"{name} of {STORES} stores, median", middle(large, key, "p50"), "ms", f"< {PAGE_MS_MAX}",
                   f"{STORES // 100} stores", middle(small, key, "p50"))
        report.add(f"{name} of {STORES} stores, longest of 50", middle(large, key, "max"), "ms", f"< {PAGE_MS_MAX}")


def called(host, folder, log):
    """Calls the ingest of an empty store many times; milliseconds of each, as seen outside."""
    port = mariadb.free_port()
    with open(log, "w", encoding="utf-8") as stderr:
        server = subprocess.Popen(
            [host, "--lake", os.path.join(folder, "store"), "--json", "up", "--listen", f"127.0.0.1:{port}"],
            env={**os.environ, "RIBERA_LOG": "warn,ribera=debug"}, stdout=subprocess.DEVNULL, stderr=stderr,
        )
        try:
            return [one_call(port, wait_s=120 if turn == 0 else 5) for turn in range(CALLS + WARM_UP)][WARM_UP:]
        finally:
            server.terminate()
            server.wait()


def one_call(port, wait_s):
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            started = time.monotonic()
            # A sweep over HTTP is followed by a pause; an event that names nothing there is not.
            connection.request("POST", "/ingest", body=b'{"manifests": ["inbox/s1/ventas/000000-0000000001.json"]}')
            answer = connection.getresponse()
            body = answer.read()
            taken = time.monotonic() - started
            connection.close()
        except ConnectionRefusedError:
            # The first start compiles the components.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
            continue
        if answer.status != 200:
            raise RuntimeError(f"POST /ingest: {answer.status} {body[:300]!r}")
        return taken * 1000


def quantile(values, part):
    return sorted(values)[round((len(values) - 1) * part)]
