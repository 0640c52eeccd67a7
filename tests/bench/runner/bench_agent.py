"""`bench agent`: a month of point-of-sale lines out of MariaDB and PostgreSQL, audit on, beside peers on
the same server, the same columns and the same compression level.

RIBERA_BENCH_SOURCES=postgresql measures one of them."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from types import ModuleType

from . import mariadb, measure, peers, place, postgres, sales

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
kind = "{kind}"
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


@dataclass
class Source:
    """A server, and what can read it."""

    title: str
    kind: str
    module: ModuleType
    table: str
    load: str
    peers: tuple

    @property
    def name(self):
        return self.title.lower()


SOURCES = [
    Source("MariaDB", "mysql", mariadb, sales.TABLE, sales.LOAD, (peers.DUCKDB, peers.CONNECTORX)),
    Source("PostgreSQL", "postgres", postgres, sales.TABLE_POSTGRES, sales.LOAD_POSTGRES,
           (peers.DUCKDB, peers.CONNECTORX, peers.RIVET)),
]
# One run each: many times slower than the others.
SLOW_PEERS = (peers.DLT,)


def run(report):
    program = place.agent_program()
    wanted = os.environ.get("RIBERA_BENCH_SOURCES", "mariadb,postgresql").split(",")
    for source in SOURCES:
        if source.name in wanted:
            measure_source(report, program, source)


def measure_source(report, program, source):
    def fill(server):
        print(f"  loading {ROWS} rows into {source.title} (once)", flush=True)
        server.sql(source.table)
        with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
            csv = os.path.join(folder, "ventas.csv")
            subprocess.run([peers.python(place.CACHE), sales.__file__, str(ROWS), csv], check=True)
            server.sql(source.load.format(csv=csv))

    data = os.path.join(place.CACHE, f"{source.name}-{ROWS}")
    with source.module.server(data, fill) as server, tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
        candidates = {AGENT: agent(program, source, server, folder)}
        candidates |= {name: peer(name, server, folder) for name in source.peers}
        runs = measure.alternate(candidates, place.TIMES)
        runs |= measure.alternate({name: peer(name, server, folder) for name in SLOW_PEERS}, 1)
        parts = [agent(program, source, server, folder, day)() for day in (sales.WEEK_DAY, sales.HALF_DAY)]
        truth = sums_of(server.sql("SELECT count(*), sum(cantidad), sum(total) FROM ventas_detalle;"))
    judge(report, source, runs, truth, *parts)


def judge(report, source, runs, truth, week, half):
    def of(name, value):
        return measure.median(runs[name], value)

    def what(name):
        return f"{source.title}: {name}"

    ours = runs[AGENT]
    report.add(what("rows or sums that differ from the source"),
               sum(one.extra["sums"] != truth for one in ours), f"of {len(ours)} runs", "= 0")
    for name in (*source.peers, *SLOW_PEERS):
        report.add(
            what("CPU per million rows"), of(AGENT, cpu_per_million), "CPU-s", f"<= {CPU_S_PER_MILLION_MAX}",
            name, of(name, cpu_per_million), "< 1",
        )
        report.add(
            what("resident memory"), of(AGENT, resident_mb), "MB", f"<= {RESIDENT_MB_MAX}", name, of(name, resident_mb),
            "< 1",
        )
        report.add(
            what("file size"), of(AGENT, file_bytes), "bytes", None, name, of(name, file_bytes),
            f"<= {FILE_RATIO_MAX}" if name == peers.DUCKDB else None,
        )
        report.add(what("CPU of the source's server"), of(AGENT, server_cpu), "CPU-s", None, name, of(name, server_cpu))
        report.add(
            what("wall time"), of(AGENT, lambda one: one.wall_s), "s", None, name, of(name, lambda one: one.wall_s)
        )
    # A week hardly fills one row group, so its peak is lower than that of any longer run.
    for name, part, bound in (("a week", week, None), ("half a month", half, f"<= {GROWTH_MAX}")):
        report.add(
            what(f"resident memory of the month beside {name}"), of(AGENT, resident_mb), "MB", None,
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


def agent(program, source, server, folder, last_day=sales.LAST_DAY):
    """One backfill of the month into a fresh spool: fingerprints, audit, extraction, audit."""
    config = os.path.join(folder, "agent.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG.format(
            folder=folder, kind=source.kind, port=server.port, database=mariadb.DATABASE, user=mariadb.USER
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
    """One extraction by a peer into a fresh file; some make a folder of files beside it."""

    def once():
        out = os.path.join(folder, "peer.parquet")
        for left in (out, f"{out}.rivet", f"{out}.dlt"):
            shutil.rmtree(left, ignore_errors=True)
            if os.path.exists(left):
                os.remove(left)
        before = server.cpu_s()
        one = measure.run(peers.command(place.CACHE, name, server.uri, out, sales.COLUMNS), TIMEOUT_S)
        one.extra["server_cpu_s"] = server.cpu_s() - before
        files = [os.path.join(at, file) for at, _, names in os.walk(folder) for file in names
                 if file.endswith(".parquet") and at.startswith(out) or os.path.join(at, file) == out]
        one.extra["file_bytes"] = sum(os.path.getsize(file) for file in files)
        if not files:
            raise RuntimeError(f"{name} wrote no Parquet")
        return one

    return once
