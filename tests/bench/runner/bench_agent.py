"""`bench agent`: a month of point-of-sale lines out of MariaDB, beside DuckDB's scanner and connectorx."""

import os
import shutil
import subprocess
import tempfile

from . import mariadb, measure, peers, place, sales

ROWS = int(os.environ.get("RIBERA_BENCH_ROWS", "5000000"))
TIMEOUT_S = 1800


def run(report):
    with mariadb.server(place.cache(f"mariadb-{ROWS}"), fill) as server:
        with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
            candidates = {name: peer(name, server, folder) for name in (peers.DUCKDB, peers.CONNECTORX)}
            runs = measure.alternate(candidates, place.TIMES)
    for name, of in runs.items():
        print(name, {
            "cpu_s_per_million": measure.median(of, lambda one: one.cpu_s) / ROWS * 1e6,
            "rss_mb": measure.median(of, lambda one: one.rss_bytes) / 2**20,
            "file_bytes": of[0].extra["file_bytes"],
            "server_cpu_s": measure.median(of, lambda one: one.extra["server_cpu_s"]),
        })


def fill(server):
    """Loads the month into a fresh server."""
    print(f"  loading {ROWS} rows into MariaDB (once)", flush=True)
    server.sql(sales.TABLE)
    with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
        csv = os.path.join(folder, "ventas.csv")
        subprocess.run([peers.python(place.CACHE), sales.__file__, str(ROWS), csv], check=True)
        server.sql(sales.LOAD.format(csv=csv))


def peer(name, server, folder):
    """One extraction by a peer into a fresh file."""

    def once():
        out = os.path.join(folder, "peer.parquet")
        if os.path.exists(out):
            os.remove(out)
        before = server.cpu_s()
        one = measure.run(peers.command(place.CACHE, name, server.uri, out, sales.COLUMNS), TIMEOUT_S)
        one.extra["server_cpu_s"] = server.cpu_s() - before
        one.extra["file_bytes"] = os.path.getsize(out)
        return one

    return once
