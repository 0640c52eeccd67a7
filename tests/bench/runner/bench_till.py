"""`bench till`: how long the commits of a selling till take beside a backfill, and without the agent.

RIBERA_BENCH_SOURCES=postgresql,firebird measures only these; RIBERA_BENCH_ROWS rows are backfilled."""

import contextlib
import datetime
import os
import shutil
import sqlite3
import time

from . import measure, place, sales, tills
from .bench_agent import ROWS, TIMEOUT_S, backfill, sales_file, scratch
from .sources import PASSWORD, SOURCES

ALONE_S = 10
# A day after the last that is backfilled, so that the agent's rows stay as they are.
DAY = str(datetime.date.fromisoformat(sales.last_day(ROWS)) + datetime.timedelta(days=1))
CLIENTS = {
    "mariadb": ("BEGIN;\n", "SELECT '{word}';"),
    "postgresql": ("BEGIN;\n", "SELECT '{word}';"),
    "firebird": ("SET HEADING OFF;\n", "SELECT '{word}' FROM RDB$DATABASE; COMMIT;"),
}


def run(report):
    program = place.agent_program()
    wanted = os.environ.get("RIBERA_BENCH_SOURCES", ",".join(source.name for source in SOURCES)).split(",")
    for source in SOURCES:
        if source.name not in wanted:
            continue
        data = os.path.join(place.CACHE, f"{source.name}-{ROWS}")
        with source.filled(data, lambda source=source: sales_file(source)) as running, scratch() as folder:
            for kind in ("WAL", "DELETE") if source.name == "sqlite" else (None,):
                title = f"{source.title}, journal mode {kind}" if kind else source.title
                measure_till(report, program, source, running, folder, kind, title)


def measure_till(report, program, source, running, folder, journal_mode, title):
    try:
        with tills.selling(connected(source, running, journal_mode), DAY) as alone:
            time.sleep(ALONE_S)
        with tills.selling(connected(source, running, journal_mode), DAY) as beside:
            backfills = 0
            began = time.monotonic()
            while backfills == 0 or time.monotonic() - began < ALONE_S:
                shutil.rmtree(os.path.join(folder, "agent"), ignore_errors=True)
                command = backfill(program, source, running, folder, sales.last_day(ROWS))
                measure.run(command, TIMEOUT_S, env={"POS_PASSWORD": PASSWORD})
                backfills += 1
    finally:
        running.sql(f"DELETE FROM ventas_detalle WHERE fecha = '{DAY}';")
    report.add(f"{title}: commits refused beside {backfills} backfills", beside.refused,
               f"of {len(beside.took_s) + beside.refused}", "= 0")
    report.add(f"{title}: p99 of a till's commits", beside.p99_ms, "ms", None, "without the agent", alone.p99_ms)
    report.add(f"{title}: longest commit", beside.longest_ms, "ms", None, "without the agent", alone.longest_ms)


def connected(source, running, journal_mode):
    """A till's connection; it closes it when it has sold."""
    if source.name != "sqlite":
        return tills.Client(running, *CLIENTS[source.name])
    with contextlib.closing(sqlite3.connect(running.path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
    return tills.File(running.path)
