"""`bench agent`: point-of-sale lines out of MariaDB, PostgreSQL, Firebird and SQLite, audit on, beside peers on
the same server, the same columns and the same compression level.

RIBERA_BENCH_SOURCES=postgresql,firebird measures only these."""

import contextlib
import os
import shutil
import subprocess
import tempfile

from . import measure, peers, place, sales
from .sources import PASSWORD, SOURCES

ROWS = int(os.environ.get("RIBERA_BENCH_ROWS", "5000000"))
AGENT = "ribera-agent"
CPU_S_PER_MILLION_MAX, RESIDENT_MB_MAX, FILE_RATIO_MAX, GROWTH_MAX = 2, 64, 1.1, 1.1
TIMEOUT_S = 3600
# Slow peers are left out above: an hour would not do.
SLOW_ROWS_MAX = 5_000_000

CONFIG = """
folder = "{folder}/agent"
[object_store]
folder = "{folder}/objects"
[limits]
spool_bytes_max = 16_000_000_000
[[store]]
id = "017"
time_zone = "Europe/Madrid"
adapter = "caja"
[store.source]
{settings}
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
cantidad = {cantidad}
precio_unitario = {precio}
descuento = {descuento}
total = {total}
"""
AMOUNTS = ("cantidad", "precio", "descuento", "total")


def run(report):
    program = place.agent_program()
    wanted = os.environ.get("RIBERA_BENCH_SOURCES", ",".join(source.name for source in SOURCES)).split(",")
    unknown = set(wanted) - {source.name for source in SOURCES}
    if unknown:
        raise SystemExit(f"RIBERA_BENCH_SOURCES: no such source: {', '.join(sorted(unknown))}")
    for source in SOURCES:
        if source.name in wanted:
            measure_source(report, program, source)


def measure_source(report, program, source):
    data = os.path.join(place.CACHE, f"{source.name}-{ROWS}")
    with source.filled(data, lambda: sales_file(source)) as running, scratch() as folder:
        candidates = {AGENT: agent(program, source, running, folder)}
        candidates |= {name: peer(name, running, folder) for name in source.peers}
        runs = measure.alternate(candidates, place.TIMES)
        slow = source.slow_peers if ROWS <= SLOW_ROWS_MAX else ()
        runs |= measure.alternate({name: peer(name, running, folder) for name in slow}, 1)
        parts = [agent(program, source, running, folder, day)() for day in (sales.WEEK_DAY, sales.HALF_DAY)]
        truth = sums_of(source.truth(running))
    judge(report, source, runs, truth, *parts)


@contextlib.contextmanager
def sales_file(source):
    print(f"  loading {ROWS} rows into {source.title} (once)", flush=True)
    with scratch() as folder:
        csv = os.path.join(folder, "ventas.csv")
        subprocess.run([peers.python(place.CACHE), sales.__file__, str(ROWS), csv], check=True)
        yield csv


def scratch():
    return tempfile.TemporaryDirectory(dir=place.cache("scratch"))


def judge(report, source, runs, truth, week, half):
    def of(name, value):
        return measure.median(runs[name], value)

    def what(name):
        return f"{source.title}: {name}"

    ours = runs[AGENT]
    others = [name for name in runs if name != AGENT]
    report.add(what("rows or sums that differ from the source"),
               sum(one.extra["sums"] != truth for one in ours), f"of {len(ours)} runs", "= 0")
    if not others:
        report.add(what("CPU per million rows"), of(AGENT, cpu_per_million), "CPU-s", f"<= {CPU_S_PER_MILLION_MAX}")
        report.add(what("resident memory"), of(AGENT, resident_mb), "MB", f"<= {RESIDENT_MB_MAX}")
        report.add(what("file size"), of(AGENT, file_bytes), "bytes")
        report.add(what("CPU of the source's server"), of(AGENT, server_cpu), "CPU-s")
        report.add(what("wall time"), of(AGENT, wall_s), "s")
    for name in others:
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
        report.add(what("wall time"), of(AGENT, wall_s), "s", None, name, of(name, wall_s))
        if runs[name][0].extra["longest_query_s"] is not None:
            report.add(
                what("longest single query, by the server's log"), of(AGENT, longest_query_s), "s", None,
                name, of(name, longest_query_s),
            )
        report.add(
            what("quantity and amount"), ours[0].extra["decimals"], "", None, name, runs[name][0].extra["decimals"]
        )
    report.add(
        what("longest single query, by the agent"), of(AGENT, lambda one: one.extra["longest_query_agent_s"]), "s"
    )
    # A week hardly fills one row group, so its peak is lower than that of any longer run.
    for name, part, bound in (("a week", week, None), ("half a month", half, f"<= {GROWTH_MAX}")):
        report.add(
            what(f"resident memory of all days beside {name}"), of(AGENT, resident_mb), "MB", None,
            f"{part.extra['sums'][0]} rows", resident_mb(part), bound,
        )


def cpu_per_million(one):
    return one.cpu_s / ROWS * 1e6


def resident_mb(one):
    return one.rss_bytes / 2**20


def file_bytes(one):
    return one.extra["file_bytes"]


def wall_s(one):
    return one.wall_s


def longest_query_s(one):
    return one.extra["longest_query_s"]


def server_cpu(one):
    return one.extra["server_cpu_s"]


def agent(program, source, running, folder, last_day=sales.last_day(ROWS)):
    """One backfill of all days into a fresh spool: fingerprints, audit, extraction, audit."""
    command = backfill(program, source, running, folder, last_day)
    spool = os.path.join(folder, "agent")

    def once():
        shutil.rmtree(spool, ignore_errors=True)
        # What went before is in the server's log too: the loading.
        running.longest_query_s()
        before = running.cpu_s()
        one = measure.run(command, TIMEOUT_S, env={"POS_PASSWORD": PASSWORD})
        one.extra["server_cpu_s"] = running.cpu_s() - before
        one.extra["longest_query_s"] = running.longest_query_s()
        one.extra["longest_query_agent_s"] = max(part["longest_query_s"] for part in one.last_json["datasets"])
        files = [os.path.join(at, name) for at, _, names in os.walk(spool) for name in names if ".parquet" in name]
        one.extra["file_bytes"] = sum(os.path.getsize(file) for file in files)
        one.extra["decimals"] = peers.decimals(place.CACHE, files)
        one.extra["sums"] = sums_of(peers.sums(place.CACHE, files))
        return one

    return once


def backfill(program, source, running, folder, last_day):
    """The command that reads all days up to `last_day` into the spool; its configuration is written."""
    config = os.path.join(folder, "agent.toml")
    with open(config, "w", encoding="utf-8") as file:
        columns = {name: source.columns.get(name, f'"{name}"') for name in AMOUNTS}
        file.write(CONFIG.format(folder=folder, settings=running.settings(), **columns))
    return [program, "--config", config, "--json", "--local-only", "backfill",
               "--from", sales.FIRST_DAY, "--to", last_day]


def sums_of(line):
    """Rows and sums as exact text without trailing zeros."""
    rows, *sums = line.split()
    return (int(rows), *(text.rstrip("0").rstrip(".") for text in sums))


def peer(name, running, folder):
    """One extraction by a peer into a fresh file; some make a folder of files beside it."""

    def once():
        out = os.path.join(folder, "peer.parquet")
        for left in (out, f"{out}.rivet", f"{out}.dlt"):
            shutil.rmtree(left, ignore_errors=True)
            if os.path.exists(left):
                os.remove(left)
        running.longest_query_s()
        before = running.cpu_s()
        one = measure.run(peers.command(place.CACHE, name, running.uri, out, sales.COLUMNS), TIMEOUT_S)
        one.extra["server_cpu_s"] = running.cpu_s() - before
        one.extra["longest_query_s"] = running.longest_query_s()
        files = [os.path.join(at, file) for at, _, names in os.walk(folder) for file in names
                 if file.endswith(".parquet") and at.startswith(out) or os.path.join(at, file) == out]
        one.extra["file_bytes"] = sum(os.path.getsize(file) for file in files)
        if not files:
            raise RuntimeError(f"{name} wrote no Parquet")
        # dlt keeps tables of its own beside it.
        kept = [file for file in files if "_dlt_" not in file]
        one.extra["decimals"] = peers.decimals(place.CACHE, kept)
        return one

    return once
