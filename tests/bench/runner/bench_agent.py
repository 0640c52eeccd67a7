"""`bench agent`: a month of point-of-sale lines out of MariaDB, audit on, beside DuckDB's scanner
and connectorx on the same server, the same columns and the same compression level."""

import os
import shutil
import subprocess
import tempfile

from . import mariadb, measure, peers, place, sales

ROWS = int(os.environ.get("RIBERA_BENCH_ROWS", "5000000"))
AGENT = "ribera-agent"
CPU_S_PER_MILLION_MAX, RESIDENT_MB_MAX, FILE_RATIO_MAX, GROWTH_MAX = 2, 64, 1.1, 1.1
TIMEOUT_S = 1800

CONFIG = """
folder = "{folder}/agent"
[object_store]
folder = "{folder}/objects"
[[store]]
id = "017"
time_zone = "Europe/Madrid"
adapter = "caja"
[store.source]
kind = "mysql"
host = "127.0.0.1"
port = {port}
database = "{database}"
user = "{user}"
password = "${{RIBERA_BENCH_PASSWORD}}"
tls = "off"
[adapter.caja.ventas]
from = "ventas_detalle"
date = "fecha"
order = ["ticket", "linea"]
[adapter.caja.ventas.columns]
ubicacion_id = "tienda"
ticket_id = "ticket"
linea = "linea"
vendido_en = "vendido_en"
producto_id = "producto"
cliente_id = "cliente"
cantidad = "cantidad"
precio_unitario = "precio"
descuento = "descuento"
total = "total"
"""


def run(report):
    program = place.agent_program()
    with mariadb.server(os.path.join(place.CACHE, f"mariadb-{ROWS}"), fill) as server:
        with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
            candidates = {AGENT: agent(program, server, folder)}
            candidates |= {name: peer(name, server, folder) for name in (peers.DUCKDB, peers.CONNECTORX)}
            runs = measure.alternate(candidates, place.TIMES)
            parts = [agent(program, server, folder, day)() for day in (sales.WEEK_DAY, sales.HALF_DAY)]
            wanted = sums_of(server.sql("SELECT count(*), sum(cantidad), sum(total) FROM ventas_detalle;"))
    judge(report, runs, wanted, *parts)


def judge(report, runs, wanted, week, half):
    def of(name, value):
        return measure.median(runs[name], value)

    ours = runs[AGENT]
    report.add("rows or sums that differ from the source",
               sum(one.extra["sums"] != wanted for one in ours), f"of {len(ours)} runs", "= 0")
    for name in (peers.DUCKDB, peers.CONNECTORX):
        report.add(
            "CPU per million rows", of(AGENT, cpu_per_million), "CPU-s", f"<= {CPU_S_PER_MILLION_MAX}",
            name, of(name, cpu_per_million), "< 1",
        )
        report.add(
            "resident memory", of(AGENT, resident_mb), "MB", f"<= {RESIDENT_MB_MAX}", name, of(name, resident_mb), "< 1",
        )
        report.add(
            "file size", of(AGENT, file_bytes), "bytes", None, name, of(name, file_bytes),
            f"<= {FILE_RATIO_MAX}" if name == peers.DUCKDB else None,
        )
        report.add("CPU of the source's server", of(AGENT, server_cpu), "CPU-s", None, name, of(name, server_cpu))
        report.add("wall time", of(AGENT, lambda one: one.wall_s), "s", None, name, of(name, lambda one: one.wall_s))
    # A week hardly fills one row group, so its peak is lower than that of any longer run.
    for name, part, bound in (("a week", week, None), ("half a month", half, f"<= {GROWTH_MAX}")):
        report.add(
            f"resident memory of the month beside {name}", of(AGENT, resident_mb), "MB", None,
            f"{part.extra['sums'][0]} rows", resident_mb(part), bound,
        )


def cpu_per_million(one):
    return one.cpu_s / ROWS * 1e6


def resident_mb(one):
    return one.rss_bytes / 2**20


def file_bytes(one):
    return one.extra["file_bytes"]


def server_cpu(one):
    return one.extra["server_cpu_s"]


def fill(server):
    """Loads the month into a fresh server."""
    print(f"  loading {ROWS} rows into MariaDB (once)", flush=True)
    server.sql(sales.TABLE)
    with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
        csv = os.path.join(folder, "ventas.csv")
        subprocess.run([peers.python(place.CACHE), sales.__file__, str(ROWS), csv], check=True)
        server.sql(sales.LOAD.format(csv=csv))


def agent(program, server, folder, last_day=sales.LAST_DAY):
    """One backfill of the month into a fresh spool: fingerprints, audit, extraction, audit."""
    config = os.path.join(folder, "agent.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG.format(
            folder=folder, port=server.port, database=mariadb.DATABASE, user=mariadb.USER
        ))
    command = [program, "--config", config, "--json", "--local-only", "backfill",
               "--from", sales.FIRST_DAY, "--to", last_day]
    spool = os.path.join(folder, "agent")

    def once():
        shutil.rmtree(spool, ignore_errors=True)
        before = server.cpu_s()
        one = measure.run(command, TIMEOUT_S, env={"RIBERA_BENCH_PASSWORD": mariadb.PASSWORD})
        one.extra["server_cpu_s"] = server.cpu_s() - before
        files = [os.path.join(at, name) for at, _, names in os.walk(spool) for name in names if ".parquet" in name]
        one.extra["file_bytes"] = sum(os.path.getsize(file) for file in files)
        one.extra["sums"] = sums_of(peers.sums(place.CACHE, files))
        return one

    return once


def sums_of(line):
    """Rows and sums as exact text without trailing zeros."""
    rows, *sums = line.split()
    return (int(rows), *(text.rstrip("0").rstrip(".") for text in sums))


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
