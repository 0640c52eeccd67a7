"""Engines that read a lake beside an ideal copy of it. Run with the tests' Python, each time one engine in a
process of its own; the last line of output is JSON.

    layout_engines.py census TABLE                         what the log names
    layout_engines.py ideal TABLE FOLDER                   one sorted file per month
    layout_engines.py ask ENGINE TABLE IDEAL ASKED TIMES   both sides in turn, many times, in this process
    layout_engines.py once IDEAL ASKED NAME                one question to the ideal copy by DuckDB, and out

ASKED is JSON: {"store": ..., "first": ..., "last": ..., "day": ...}.
"""

import json
import os
import resource
import sys
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

ZSTD_LEVEL = 3


def sql_of(asked):
    """The questions, as most dialects take them: a key, lines, amount."""
    sums = "count(*) AS n, sum(total) AS s FROM {t}"
    day = "CAST('{}' AS DATE)"
    first, last, one = (day.format(asked[name]) for name in ("first", "last", "day"))
    return {
        "total by month": f"SELECT month AS k, {sums} GROUP BY month ORDER BY 1",
        "a store's year": f"SELECT month AS k, {sums} WHERE store_id = '{asked['store']}'"
                          f" AND fecha BETWEEN {first} AND {last} GROUP BY month ORDER BY 1",
        "a day of all stores": f"SELECT store_id AS k, {sums} WHERE fecha = {one} GROUP BY store_id ORDER BY 1",
    }


def months(root):
    """The live files of each month, by the log: path and bytes."""
    from deltalake import DeltaTable

    adds = DeltaTable(str(root)).get_add_actions(flatten=True)
    paths, sizes, of = (adds.column(name).to_pylist() for name in ("path", "size_bytes", "partition.month"))
    found = {}
    for path, size, month in zip(paths, sizes, of, strict=True):
        found.setdefault(month, []).append((str(root / path), size))
    return dict(sorted(found.items()))


def census(root):
    log = list((root / "_delta_log").iterdir())
    checkpoints = sorted(file for file in log if ".checkpoint" in file.name)
    return {
        "months": {month: [size for _, size in files] for month, files in months(root).items()},
        "entry_bytes": sum(file.stat().st_size for file in log if file.suffix == ".json"),
        "entries": sum(file.suffix == ".json" for file in log),
        "checkpoint_bytes": checkpoints[-1].stat().st_size if checkpoints else 0,
        "facts_bytes": sum(file.stat().st_size for file in root.rglob("_part-*.facts")),
    }


def make_ideal(root, folder):
    """What a person would make by hand of the same rows: a file for each month, sorted by store, day and key."""
    import duckdb
    from deltalake import Field, Schema, convert_to_deltalake

    connection = duckdb.connect()
    rows = 0
    for month, files in months(root).items():
        to = folder / f"month={month}"
        to.mkdir(parents=True)
        listed = [path for path, _ in files]
        rows += connection.execute(
            f"COPY (SELECT * FROM read_parquet(?, hive_partitioning = false) ORDER BY store_id, fecha, ticket_id, linea)"
            f" TO '{to}/ideal.parquet' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {ZSTD_LEVEL})",
            [listed],
        ).fetchone()[0]
    # A log of one entry, for engines that read files by a log alone; the others read the files.
    convert_to_deltalake(str(folder), partition_by=Schema([Field("month", "string")]), partition_strategy="hive")
    return {"rows": rows, "bytes": sum(file.stat().st_size for file in folder.rglob("*.parquet"))}


# Each gives the two sides: name of a question -> rows of key, lines, amount.


def duckdb_of_list(root, ideal, asked):
    """The lake as the list of its files: what reading the log costs is left out."""
    import duckdb

    listed = [path for files in months(root).values() for path, _ in files]
    return of_duckdb(duckdb.connect(), parquet_of(listed), parquet_of([f"{ideal}/month=*/*.parquet"]), asked)


def duckdb_of_delta(root, ideal, asked):
    import duckdb
    import duckdb_extension_delta

    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    [extension] = Path(duckdb_extension_delta.__file__).parent.rglob("*.duckdb_extension")
    connection.execute(f"LOAD '{extension}'")
    return of_duckdb(connection, f"delta_scan('{root}')", f"delta_scan('{ideal}')", asked)


def of_duckdb(connection, lake, ideal, asked):
    queries = sql_of(asked)

    def of(table):
        return lambda name: connection.execute(queries[name].format(t=table)).fetchall()

    return of(lake), of(ideal)


def parquet_of(paths):
    """For DuckDB; the month is text, as the lake has it."""
    listed = ", ".join(f"'{path}'" for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = true, hive_types_autocast = false)"


def polars(root, ideal, asked):
    import polars as pl

    first, last, one = (date.fromisoformat(asked[name]) for name in ("first", "last", "day"))
    whose = {
        "total by month": ("month", []),
        "a store's year": ("month", [pl.col("store_id") == asked["store"], pl.col("fecha").is_between(first, last)]),
        "a day of all stores": ("store_id", [pl.col("fecha") == one]),
    }

    def of(scan):
        def ask(name):
            key, filters = whose[name]
            frame = scan()
            frame = frame.filter(*filters) if filters else frame
            return frame.group_by(key).agg(pl.len(), pl.col("total").sum()).sort(key).collect().rows()

        return ask

    copy = f"{ideal}/month=*/*.parquet"
    schema = {"month": pl.String}
    return of(lambda: pl.scan_delta(str(root))), of(lambda: pl.scan_parquet(copy, hive_partitioning=True, hive_schema=schema))


def deltalake(root, ideal, asked):
    from deltalake import DeltaTable, QueryBuilder

    queries = sql_of(asked)

    def of(folder):
        def ask(name):
            builder = QueryBuilder().register("t", DeltaTable(str(folder)))
            table = builder.execute(queries[name].format(t="t")).read_all()
            columns = [table.column(index).to_pylist() for index in range(3)]
            return list(zip(*columns, strict=True))

        return ask

    return of(root), of(ideal)


def clickhouse(root, ideal, asked):
    from chdb.session import Session

    # It opens only files below the working folder.
    os.chdir("/")
    session = Session()
    queries = sql_of(asked)

    def of(table):
        def ask(name):
            text = str(session.query(queries[name].format(t=table), "TSV"))
            rows = (line.split("\t") for line in text.splitlines())
            return [(key, int(lines), Decimal(total)) for key, lines, total in rows]

        return ask

    return of(f"deltaLakeLocal('{root}')"), of(f"file('{ideal}/month=*/*.parquet', Parquet)")


ENGINES = {
    "DuckDB": duckdb_of_list, "DuckDB, delta_scan": duckdb_of_delta, "Polars": polars, "deltalake": deltalake,
    "ClickHouse": clickhouse,
}


def plain(rows):
    """Answers of all engines alike."""
    return [[str(key), int(lines), f"{Decimal(str(total)):.2f}"] for key, lines, total in rows]


def ask(engine, root, ideal, asked, times):
    sides = dict(zip(("lake", "ideal"), ENGINES[engine](root, ideal, asked), strict=True))
    found = {}
    for name in sql_of(asked):
        runs = {side: {"wall_s": [], "cpu_s": []} for side in sides}
        for turn in range(times + 1):
            for side, of in sides.items():
                begun, used = time.perf_counter(), cpu_s()
                rows = of(name)
                wall, cpu = time.perf_counter() - begun, cpu_s() - used
                # The first finds nothing in any cache.
                if turn > 0:
                    runs[side]["wall_s"].append(wall)
                    runs[side]["cpu_s"].append(cpu)
                runs[side]["answer"] = plain(rows)
        found[name] = runs
    return found


def once(ideal, asked, name):
    import duckdb

    copy = parquet_of([f"{ideal}/month=*/*.parquet"])
    return {"answer": plain(duckdb.execute(sql_of(asked)[name].format(t=copy)).fetchall())}


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    what, *words = sys.argv[1:]
    if what == "census":
        found = census(Path(words[0]))
    elif what == "ideal":
        found = make_ideal(Path(words[0]), Path(words[1]))
    elif what == "ask":
        found = ask(words[0], Path(words[1]), Path(words[2]), json.loads(words[3]), int(words[4]))
    else:
        found = once(words[0], json.loads(words[1]), words[2])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
