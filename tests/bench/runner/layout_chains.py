"""The lakes of `bench layout`: landed batches, the real ingest, the real `maintain`."""

import contextlib
import datetime
import functools
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass

from . import bench_ingest, measure, place

HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT_S = 2 * 3600
DAYS_PER_MONTH = 30.4
# First year, rows of a store and day, and what is made when nothing else is asked for.
GENERATED = {"wide": (2025, 20, "10000x2,2500x13"), "old": (2006, 2, "100x240")}
# Zipf's exponent: of 10,000 stores the largest sells 1,600 times as much as the smallest.
TAIL = 0.8
KEEP = os.environ.get("RIBERA_BENCH_LAYOUT_KEEP") == "yes"


@dataclass
class Programs:
    bench: str
    host: str
    python: str

    def engines(self, *words):
        return self.measure_engines(*words).last_json

    def measure_engines(self, *words):
        script = os.path.join(HERE, "layout_engines.py")
        return measure.run([self.python, "-B", script, *map(str, words)], TIMEOUT_S)

    def ribera(self, lake, *words):
        return measure.run([self.host, "--lake", lake, "--json", *words], TIMEOUT_S)


@dataclass
class Made:
    """A lake, and what its making cost."""

    name: str
    lake: str
    store: str
    first: str
    last: str
    day: str
    is_real: bool = False
    rows: int = 0
    batches: int = 0
    rows_merged: int = 0
    merge_cpu_s: float = 0
    merge_wall_s: float = 0
    merge_rss_bytes: int = 0
    sweep_cpu_s: float = 0

    @property
    def asked(self):
        return {"store": self.store, "first": self.first, "last": self.last, "day": self.day}

    def declare(self, programs, stores, zone, opened, closed):
        """Each store with the days on which it was open: no other day is expected of it."""
        file = f"{self.lake}.stores.toml"
        with open(file, "w", encoding="utf-8") as out:
            for store in stores:
                out.write(f'[[store]]\nid = "{store}"\nname = "Tienda {store}"\ntime_zone = "{zone}"\n'
                          f'opened = "{opened}"\nclosed = "{closed}"\n')
        programs.ribera(self.lake, "store", "add", "--file", file)
        os.remove(file)

    def landed(self, batches, rows):
        self.batches += batches
        self.rows += rows

    def sweep_and_merge(self, programs):
        swept = measure.run([programs.bench, "sweep", f"--folder={self.lake}", "--sync=no"], TIMEOUT_S)
        bench_ingest.require_clean(self.lake)
        self.sweep_cpu_s += swept.cpu_s
        merged = programs.ribera(self.lake, "maintain")
        [table] = json.loads(merged.output)["tables"]
        if table["failures"] or table["groups_overtaken"]:
            raise RuntimeError(f"maintain: {table}")
        self.rows_merged += table["rows_merged"]
        self.merge_cpu_s += merged.cpu_s
        self.merge_wall_s += merged.wall_s
        self.merge_rss_bytes = max(self.merge_rss_bytes, merged.rss_bytes)
        print(f"  {self.rows} rows, {self.batches} batches; sweep {swept.wall_s:.0f} s; maintain {merged.wall_s:.1f} s, "
              f"{merged.cpu_s:.1f} CPU-s, files {table['files_before']} -> {table['files_after']}", flush=True)


def real(programs, lake):
    rows = f"{lake}.parquet"
    done = subprocess.run([programs.python, "-B", os.path.join(HERE, "layout_rows.py"), rows], check=True,
                          capture_output=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    made = Made(f"{len(told['store_ids'])} {told['origin']} stores, a year", lake, "tienda-367", "2017-01-01", "2017-12-31",
                "2017-06-17", is_real=told["origin"] == "real" and len(told["store_ids"]) == 457)
    made.declare(programs, told["store_ids"], told["zone"], made.first, made.last)
    landed = measure.run([programs.bench, "land", f"--folder={lake}", f"--from={rows}", "--first=2017-01", "--months=12"])
    os.remove(rows)
    made.landed(landed.last_json["batches"], landed.last_json["rows"])
    made.sweep_and_merge(programs)
    return made


def generated(programs, lake, stores, months, first_year, rows_per_day):
    """Month after month, as a chain lives: landed, swept, merged once a month is over."""
    width = max(3, len(str(stores)))
    ids = [f"t{store + 1:0{width}}" for store in range(stores)]
    name = f"{stores:,} generated stores x {months} months, {rows_per_day} rows a day"
    year = first_year + max(0, months // 12 - 1)
    made = Made(name, lake, ids[stores // 2], f"{year}-01-01", f"{year}-12-31", f"{year}-02-14")
    # The day before the first of the month that follows.
    end = datetime.date(first_year + months // 12, months % 12 + 1, 1) - datetime.timedelta(days=1)
    made.declare(programs, ids, "Europe/Madrid", f"{first_year}-01-01", end)
    rows = round(stores * rows_per_day * DAYS_PER_MONTH)
    # In an old chain `maintain` once a year is enough, and the bench is done sooner.
    step = 1 if months <= 24 else 12
    for skip in range(0, months, step):
        landed = measure.run(
            [programs.bench, "generate", f"--folder={lake}", f"--stores={stores}", f"--first={first_year}-01",
             f"--skip={skip}", f"--months={min(step, months - skip)}", f"--rows={rows * min(step, months - skip)}",
             f"--tail={TAIL}"], TIMEOUT_S,
        )
        made.landed(landed.last_json["batches"], landed.last_json["rows"])
        made.sweep_and_merge(programs)
    return made


@dataclass
class Kind:
    """A chain that can be made."""

    name: str
    make: object

    @contextlib.contextmanager
    def folder(self):
        """A scratch folder, or one that stays."""
        if KEEP:
            yield place.cache(f"layout-{self.name}")
            return
        with tempfile.TemporaryDirectory(dir=place.cache("scratch")) as folder:
            yield folder


def kinds(part):
    if part == "real":
        return [Kind("real", real)]
    first_year, rows_per_day, default = GENERATED[part]
    found = []
    for size in os.environ.get(f"RIBERA_BENCH_LAYOUT_{part.upper()}", default).split(","):
        stores, months = map(int, size.split("x"))
        make = functools.partial(generated, stores=stores, months=months, first_year=first_year, rows_per_day=rows_per_day)
        found.append(Kind(f"{part}-{size}", make))
    return found


def keep(folder, made):
    with open(os.path.join(folder, "made.json"), "w", encoding="utf-8") as file:
        json.dump(asdict(made), file)


def kept(folder):
    """What stayed of an earlier run, if it was whole."""
    try:
        with open(os.path.join(folder, "made.json"), encoding="utf-8") as file:
            return Made(**json.load(file))
    except FileNotFoundError:
        shutil.rmtree(os.path.join(folder, "lake"), ignore_errors=True)
        return None
