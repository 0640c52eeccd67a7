#!/usr/bin/env python3
"""Judges a lake with readers that share no code with Ribera: deltalake, Polars, DuckDB with its delta extension,
and ClickHouse with each of its two readers of Delta. Each reads the table on its own and must find the same rows,
sums and content.

    judge.py LAKE [--table ventas] [--readers deltalake,polars,duckdb,clickhouse,clickhouse-kernel]
        [--expect rows=1469307 quantity=152923108 sales_value=4596039.58 content=HASH files=N]
        [--sources FOLDER_OF_SQLITE_FILES] [--day-totals FILE.json] [--version N] [--without COLUMN...] [--json]

LAKE is the object store's folder, its `lake/` folder or the table's own folder. `--sources` compares rows,
quantity and amount of every store-day with the tills' databases, to the cent; `--day-totals` with what
other databases said of theirs, a list of store, day, rows, quantity, total. `content` is a hash of
all rows that does not depend on their order or on files. Exit code 0: all agree and all
expectations hold; 1: they do not; 2: bad call or unreadable table. Without `--readers` all are asked, except
that ClickHouse's own reader is not asked about an older version: it knows the newest alone.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import sys
from decimal import Decimal
from pathlib import Path

import polars as pl

READERS = ("deltalake", "polars", "duckdb", "clickhouse", "clickhouse-kernel")
# The reader that cannot go back to an older version.
NEWEST_ONLY = "clickhouse"


def main() -> int:
    arguments = parse(sys.argv[1:])
    try:
        root = table_root(arguments.lake, arguments.table)
        names = arguments.readers.split(",") if arguments.readers else readers_of(arguments.version)
        readings = {name: read(name, root, arguments.version).drop(arguments.without) for name in names}
        files, version = files_and_version(root, arguments.version)
    except Exception as error:  # each reader has exceptions of its own
        print(f"judge: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    verdict = judge(readings, arguments)
    verdict["files"], verdict["version"] = files, version
    check_expectations(verdict, arguments.expect)
    if arguments.json:
        print(json.dumps(verdict))
    else:
        report(verdict)
    return 1 if verdict["problems"] else 0


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("lake", type=Path)
    parser.add_argument("--table", default="ventas")
    parser.add_argument("--readers", help=",".join(READERS))
    parser.add_argument("--expect", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--day-totals", type=Path)
    parser.add_argument("--version", type=int)
    parser.add_argument("--without", nargs="+", default=[], metavar="COLUMN", help="columns left out of everything")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def table_root(lake: Path, table: str) -> Path:
    for root in (lake / "lake" / table, lake / table, lake):
        if (root / "_delta_log").is_dir():
            return root.resolve()
    raise OSError(f"{lake}: no Delta table {table!r} there")


def readers_of(version: int | None) -> list[str]:
    return [name for name in READERS if version is None or name != NEWEST_ONLY]


def read(reader: str, root: Path, version: int | None) -> pl.DataFrame:
    if reader == "deltalake":
        from deltalake import DeltaTable, QueryBuilder

        table = DeltaTable(str(root), version=version)
        return pl.DataFrame(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())
    if reader == "polars":
        return pl.scan_delta(str(root), version=version).collect()
    if reader == "duckdb":
        return read_duckdb(root, version)
    if reader.startswith("clickhouse"):
        return read_clickhouse(root, version, by_kernel=reader == "clickhouse-kernel")
    raise ValueError(f"reader {reader!r}: must be one of {', '.join(READERS)}")


def read_duckdb(root: Path, version: int | None) -> pl.DataFrame:
    import duckdb

    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"LOAD '{delta_extension()}'")
    at = "" if version is None else f", version => {version}"
    return pl.DataFrame(connection.execute(f"SELECT * FROM delta_scan('{root}'{at})").to_arrow_table())


def read_clickhouse(root: Path, version: int | None, by_kernel: bool) -> pl.DataFrame:
    import chdb

    # It opens only files below the working folder.
    os.chdir("/")
    settings = f"allow_delta_kernel_rs = {int(by_kernel)}"
    if version is not None:
        settings += f", delta_lake_snapshot_version = {version}"
    query = f"SELECT * FROM deltaLakeLocal('{root}') SETTINGS {settings}"
    return pl.read_ipc_stream(chdb.query(query, "ArrowStream").bytes())


def delta_extension() -> Path:
    import duckdb_extension_delta

    found = sorted(Path(duckdb_extension_delta.__file__).parent.rglob("*.duckdb_extension"))
    if not found:
        raise OSError("duckdb-extension-delta holds no extension file")
    return found[0]


def judge(readings: dict[str, pl.DataFrame], arguments: argparse.Namespace) -> dict:
    facts = {name: facts_of(table) for name, table in readings.items()}
    problems = []
    first_name, first = next(iter(facts.items()))
    for name, other in facts.items():
        for key in first:
            if other[key] != first[key]:
                problems.append(f"{name} and {first_name} differ in {key}: {other[key]} and {first[key]}")
    verdict = {**first, "readers": list(facts), "problems": problems}
    if arguments.sources:
        table = next(iter(readings.values()))
        verdict["store_days_compared"], differing = compare_sources(table, arguments.sources, arguments.day_totals)
        problems += differing
    return verdict


def facts_of(table: pl.DataFrame) -> dict:
    facts = {"rows": table.height, "content": content_hash(table)}
    for column, name in (("cantidad", "quantity"), ("total", "sales_value")):
        if column in table.columns:
            facts[name] = plain(table[column].cast(pl.Decimal(38, table.schema[column].scale)).sum())
    if "store_id" in table.columns:
        facts["stores"] = table["store_id"].n_unique()
    return facts


def content_hash(table: pl.DataFrame) -> str:
    """SHA-256 over the sorted rows as text, columns by name: the same for every reader, row order
    and file layout."""
    columns = [text(name, kind) for name, kind in sorted(table.schema.items())]
    row = pl.concat_str(columns, separator="\x1f")
    rows = table.lazy().select(row.alias("row")).collect()["row"].sort()
    digest = hashlib.sha256("\x1f".join(sorted(table.columns)).encode())
    for start in range(0, len(rows), 100_000):
        digest.update("\n".join([*rows[start : start + 100_000], ""]).encode())
    return digest.hexdigest()


def text(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(kind, pl.Datetime):
        column = column.dt.cast_time_unit("us").dt.epoch("us")
    elif isinstance(kind, pl.Binary):
        column = column.bin.encode("hex")
    elif isinstance(kind, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    return column.cast(pl.String).fill_null("\x00")


def compare_sources(table: pl.DataFrame, folder: Path, day_totals: Path | None) -> tuple[int, list[str]]:
    """Every store-day of the tills against the lake; at most ten differences are named."""
    lake, tills = lake_days(table), till_days(folder)
    for one in json.loads(day_totals.read_text()) if day_totals else []:
        tills[one["store"], one["day"]] = (int(one["rows"]), Decimal(one["quantity"]), Decimal(one["total"]))
    if not tills:
        return 0, [f"{folder}: no till has sales"]
    wrong = differing_days(lake, tills)
    named = [
        f"store {store} day {day}: till {describe(tills.get((store, day)))}, lake {describe(lake.get((store, day)))}"
        for store, day in wrong[:10]
    ]
    return len(tills), named + ([f"{len(wrong)} store-days differ in all"] if wrong else [])


def lake_days(table: pl.DataFrame) -> dict[tuple[str, str], tuple]:
    """Rows, quantity and amount of each store and day in the lake."""
    days = table.group_by("store_id", "fecha").agg(pl.len(), pl.col("cantidad").sum(), pl.col("total").sum())
    return {
        (store, str(day)): (rows, Decimal(quantity), Decimal(total))
        for store, day, rows, quantity, total in days.iter_rows()
    }


def till_days(folder: Path) -> dict[tuple[str, str], tuple]:
    """Rows, quantity and amount of each store and day in the tills' SQLite files."""
    tills = {}
    for path in sorted(folder.glob("*.db")):
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        for day, rows, quantity, cents in database.execute(
            "SELECT fecha, COUNT(*), SUM(cantidad), SUM(importe_centavos)"
            " FROM ticket JOIN ticket_linea USING (ticket_id) GROUP BY fecha"
        ):
            tills[path.stem, day] = (rows, Decimal(quantity), Decimal(cents).scaleb(-2))
        database.close()
    return tills


def differing_days(lake: dict, tills: dict) -> list[tuple[str, str]]:
    return sorted(key for key in tills.keys() | lake.keys() if tills.get(key) != lake.get(key))


def describe(facts: tuple | None) -> str:
    return "nothing" if facts is None else f"{facts[0]} rows, {plain(facts[1])}, {plain(facts[2])}"


def files_and_version(root: Path, version: int | None) -> tuple[int, int]:
    from deltalake import DeltaTable

    table = DeltaTable(str(root), version=version)
    uris = table.file_uris()
    for uri in uris:
        if not Path(uri.removeprefix("file://")).exists():
            raise OSError(f"the log names a file that does not exist: {uri}")
    return len(uris), table.version()


def check_expectations(verdict: dict, expectations: list[str]) -> None:
    for expectation in expectations:
        name, _, value = expectation.partition("=")
        if name not in verdict:
            verdict["problems"].append(f"{name}: nothing of that name is known")
        elif not same(str(verdict[name]), value):
            verdict["problems"].append(f"{name}: expected {value}, found {verdict[name]}")


def same(found: str, expected: str) -> bool:
    try:
        return Decimal(found) == Decimal(expected)
    except ArithmeticError:
        return found == expected


def plain(value: Decimal | int) -> str:
    """Decimal text without an exponent or trailing zeros."""
    text = format(Decimal(value), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def report(verdict: dict) -> None:
    for name, value in verdict.items():
        if name != "problems":
            print(f"{name:>20}  {', '.join(value) if isinstance(value, list) else value}")
    for problem in verdict["problems"]:
        print(f"             PROBLEM  {problem}")
    if not verdict["problems"]:
        print("         all readers agree and every expectation holds")


if __name__ == "__main__":
    sys.exit(main())
