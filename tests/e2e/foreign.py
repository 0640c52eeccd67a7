"""Other programs write to a table of ours between two batches of one day. Each is refused, or the rows stay right,
or the fault is named and `ribera repair` and the agents bring the rows back.

    foreign.py [--seed N] [--list] [SCENARIO...]

The tills say what is right, and Polars and DuckDB say what is in the lake: no program of ours judges here. In every
state no store-day is called complete whose rows differ from the till's.
"""

import argparse
import json
import os
import random
import re
import shlex
import sqlite3
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from scenario import READERS_OF_NEW_COLUMNS, all_complete, chain_of, check, judged

import judge  # noqa: I001  (the path is set by `scenario`)
import polars as pl
import pyarrow
import sales
from chain import Chain, Failed
from deltalake import DeltaTable, Field, write_deltalake
from pyarrow import parquet

FIRST, LAST = date(2017, 2, 1), date(2017, 2, 10)
# The day that has a batch before the other program writes and one after it.
DAY = "2017-02-05"


def appends(root: Path, store: str) -> None:
    write_deltalake(root, rows_of_day(root, store), mode="append")


def overwrites_a_day(root: Path, store: str) -> None:
    write_deltalake(root, rows_of_day(root, store).head(1), mode="overwrite", predicate=of_day(store))


def deletes_a_day(root: Path, store: str) -> None:
    DeltaTable(root).delete(of_day(store))


def deletes_a_line(root: Path, store: str) -> None:
    [(ticket, line)] = rows_of_day(root, store).select("ticket_id", "linea").head(1).rows()
    DeltaTable(root).delete(f"{of_day(store)} AND ticket_id = '{ticket}' AND linea = {line}")


def deletes_a_store(root: Path, store: str) -> None:
    DeltaTable(root).delete(f"store_id = '{store}'")


def updates_a_day(root: Path, store: str) -> None:
    DeltaTable(root).update(updates={"total": "total + 1"}, predicate=of_day(store))


def merges_a_day(root: Path, store: str) -> None:
    on = " AND ".join(f"t.{column} = s.{column}" for column in ("store_id", "month", "ticket_id", "linea"))
    merge = DeltaTable(root).merge(rows_of_day(root, store).head(2), on, source_alias="s", target_alias="t")
    merge.when_matched_delete().execute()


def compacts(root: Path, _store: str) -> None:
    DeltaTable(root).optimize.compact()


def sorts_in_z_order(root: Path, _store: str) -> None:
    DeltaTable(root).optimize.z_order(["ticket_id"])


def inserts_by_duckdb(root: Path, store: str) -> None:
    import duckdb

    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute(f"LOAD '{judge.delta_extension()}'")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{root}' AS lake (TYPE delta)")
    rows = rows_of_day(root, store).to_arrow()  # noqa: F841  (DuckDB finds it by its name)
    connection.execute("INSERT INTO lake SELECT * FROM rows")


def inserts_by_clickhouse(root: Path, store: str) -> None:
    import chdb

    folder = Path.cwd()
    os.chdir("/")
    try:
        chdb.query(
            f"INSERT INTO FUNCTION deltaLakeLocal('{root}') SELECT * FROM deltaLakeLocal('{root}')"
            f" WHERE {of_day(store)} SETTINGS allow_delta_lake_writes = 1"
        )
    finally:
        os.chdir(folder)


# Each writes rows of one store.
WRITERS = [
    appends,
    overwrites_a_day,
    deletes_a_day,
    deletes_a_line,
    deletes_a_store,
    updates_a_day,
    merges_a_day,
    inserts_by_duckdb,
]

# Each writes a file of which nobody knows that it has no rows of some store: of all stores' rows, or without statistics.
WRITERS_OF_ALL = [compacts, sorts_in_z_order, inserts_by_clickhouse]


def a_table_of_ours_refuses_every_other_writer_and_their_housekeeping_harms_no_row(seed: int) -> None:
    with lake_of(2, seed) as chain:
        store = chain.busiest_first[0]
        before = (version(chain), lake_now(chain))
        for writer in WRITERS + WRITERS_OF_ALL:
            check_refused(writer, table(chain), store)
        for word, change in CHANGES.items():
            check_refused(change, table(chain), word)
        check((version(chain), lake_now(chain)) == before, "refused writers leave version and rows as they are")
        for word, housekeeping in HOUSEKEEPING.items():
            attempt(word, housekeeping, table(chain))
            send_a_change_of(chain, [store])
            expect_right(chain, f"after {word} and the next batch")
        chain.ribera("verify")
        judged(chain)


def in_a_table_of_an_older_release_every_write_is_named_and_repaired(seed: int) -> None:
    with lake_of(len(WRITERS) + 1, seed) as chain:
        as_an_older_release_wrote_it(chain)
        was = version(chain)
        *touched, untouched = chain.busiest_first
        for writer, store in zip(WRITERS, touched):
            before = version(chain)
            attempt(writer.__name__, writer, table(chain), store)
            check(version(chain) == before + 1, f"{writer.__name__} writes for real")
        wrong, added = wrong_is_not_complete(chain), stores_added_to(chain, was)
        check(len(added) >= len(WRITERS) - 2, f"all but those who only take files away add files, got {added}")
        check({store for store, _ in wrong} >= set(touched[:6]), f"rows are wrong now, got {wrong}")
        check(named_by_verify(chain) == added, "verify names files of these stores and of no other")
        states = states_by_store(chain)
        check(set(states[untouched]) == {"C"}, f"the other store's days stay complete, got {states[untouched]}")
        for store in added:
            check("C" not in states[store], f"no day of a store with such a file is complete, got {states[store]}")
        before = lake_now(chain)
        send_a_change_of(chain, chain.busiest_first, ok=(0, 1))
        after = lake_now(chain)
        for store in added:
            check(part(after, store) == part(before, store), f"no batch of {store} enters beside such a file")
        wrong_is_not_complete(chain)
        check(not [key for key in wrong_days(chain) if key[0] == untouched], "the other store's batch is in the lake")
        repair_and_recover(chain)
        for writer in WRITERS:
            check_refused(writer, table(chain), untouched)


def a_foreign_file_that_can_have_rows_of_every_store_makes_all_days_of_its_month_doubtful_and_is_repaired(seed: int) -> None:
    for writer in WRITERS_OF_ALL:
        with lake_of(3, seed) as chain:
            as_an_older_release_wrote_it(chain)
            attempt(writer.__name__, writer, table(chain), chain.busiest_first[0])
            wrong_is_not_complete(chain)
            check("C" not in "".join(states_by_store(chain).values()), "no day is complete without proof")
            check(named_by_verify(chain) == set(chain.busiest_first), "verify names the files of every store")
            before = lake_now(chain)
            send_a_change_of(chain, chain.busiest_first, ok=(0, 1))
            check(lake_now(chain) == before, "no batch enters beside files of unknown units")
            repair_and_recover(chain)


def a_checkpoint_and_a_clean_up_of_another_program_leave_the_rows_right(seed: int) -> None:
    with lake_of(2, seed) as chain:
        for word, housekeeping in HOUSEKEEPING.items():
            drop_the_feature(chain)
            housekeeping(table(chain))
            send_a_change_of(chain, chain.busiest_first)
            expect_right(chain, f"after {word} and the next batch")
        chain.ribera("verify")
        judged(chain)


def a_checkpoint_without_our_tags_is_not_believed_and_without_the_log_is_named_and_repaired(seed: int) -> None:
    with lake_of(2, seed) as chain:
        write_untagged_checkpoint(table(chain))
        expect_right(chain, "beside an untagged checkpoint")
        send_a_change_of(chain, chain.busiest_first)
        expect_right(chain, "after the next batch")
        write_untagged_checkpoint(table(chain))
        for entry in log_entries(table(chain)):
            entry.unlink()
        before = lake_now(chain)
        check(before == tills(chain), "the rows can still be read")
        check("C" not in "".join(states_by_store(chain).values()), "no day is complete without proof")
        check(named_by_verify(chain) == set(chain.busiest_first), "verify names the files of every store")
        send_a_change_of(chain, chain.busiest_first, ok=(0, 1))
        check(lake_now(chain) == before, "no batch enters beside files of unknown units")
        repair_and_recover(chain)


def a_table_set_back_to_an_older_version_is_named_or_repaired_by_the_next_batches(seed: int) -> None:
    with lake_of(3, seed) as chain:
        *changed, untouched = chain.busiest_first
        was = version(chain)
        send_a_change_of(chain, changed)
        as_an_older_release_wrote_it(chain)
        DeltaTable(table(chain)).restore(was)
        check(len(wrong_is_not_complete(chain)) == len(changed), "the newest batches are undone")
        send_a_change_of(chain, [untouched], ok=(0, 1))
        wrong_is_not_complete(chain)
        repair_and_recover(chain)


def changes_of_the_table_itself_are_named_and_undone_as_documented(seed: int) -> None:
    with lake_of(1, seed) as chain:
        as_an_older_release_wrote_it(chain)
        CHANGES["columns"](table(chain), "columns")
        send_a_change_of(chain, chain.busiest_first)
        expect_right(chain, "with a column of another program")
        drop_the_feature(chain)
        CHANGES["properties"](table(chain), "properties")
        send_a_change_of(chain, chain.busiest_first, ok=(1,))
        wrong_is_not_complete(chain)
        repair_and_recover(chain, *READERS_OF_NEW_COLUMNS)
        # What raises the protocol: nothing of ours is behind it in the log.
        drop_the_feature(chain)
        was = version(chain)
        CHANGES["constraint"](table(chain), "constraint")
        DeltaTable(table(chain)).create_checkpoint()
        try:
            send_a_change_of(chain, chain.busiest_first, ok=(0,))
            raise AssertionError("a table with a constraint takes no batch")
        except Failed as error:
            check(f"log entry {was + 1}" in str(error) or "checkpoint" in str(error), f"the entry is named, got {error}")
            check("docs/operator.md" in str(error), f"the way back is named, got {error}")
        check(version(chain) == was + 1, "nothing of ours is behind that entry")
        for file in (table(chain) / "_delta_log").glob("0*"):
            if int(file.name.split(".")[0]) > was:
                file.unlink()
        (table(chain) / "_delta_log/_last_checkpoint").unlink()
        chain.ribera("verify")
        chain.ribera("sweep")
        expect_right(chain, "after the way back")
        judged(chain, *READERS_OF_NEW_COLUMNS)


SCENARIOS = [
    a_table_of_ours_refuses_every_other_writer_and_their_housekeeping_harms_no_row,
    in_a_table_of_an_older_release_every_write_is_named_and_repaired,
    a_foreign_file_that_can_have_rows_of_every_store_makes_all_days_of_its_month_doubtful_and_is_repaired,
    a_checkpoint_and_a_clean_up_of_another_program_leave_the_rows_right,
    a_checkpoint_without_our_tags_is_not_believed_and_without_the_log_is_named_and_repaired,
    a_table_set_back_to_an_older_version_is_named_or_repaired_by_the_next_batches,
    changes_of_the_table_itself_are_named_and_undone_as_documented,
]

# What deltalake changes without writing rows, by the word that the refusal is printed with.
CHANGES = {
    "columns": lambda root, _: DeltaTable(root).alter.add_columns([Field("nota", "string", nullable=True)]),
    "properties": lambda root, _: DeltaTable(root).alter.set_table_properties({"delta.appendOnly": "true"}),
    "constraint": lambda root, _: DeltaTable(root).alter.add_constraint({"positive": "total > -1000000"}),
    "restore": lambda root, _: DeltaTable(root).restore(0),
}

HOUSEKEEPING = {
    "create_checkpoint": lambda root: DeltaTable(root).create_checkpoint(),
    "cleanup_metadata": lambda root: DeltaTable(root).cleanup_metadata(),
    "vacuum, dry run": lambda root: DeltaTable(root).vacuum(dry_run=True),
    "vacuum of all that is replaced": lambda root: DeltaTable(root).vacuum(
        retention_hours=0, enforce_retention_duration=False, dry_run=False
    ),
    "create_checkpoint and a log cleaned of all before it": lambda root: checkpoint_and_clean(root),
    "a checkpoint in Snappy": lambda root: checkpoint_and_clean(root, "snappy"),
    "a checkpoint in zstd": lambda root: checkpoint_and_clean(root, "zstd"),
}


def checkpoint_and_clean(root: Path, codec: str | None = None) -> None:
    """What a log looks like a month after another program's checkpoint."""
    newest = DeltaTable(root)
    newest.create_checkpoint()
    if codec:
        path = checkpoint_of(root, newest.version())
        parquet.write_table(parquet.read_table(path), path, compression=codec)
    for entry in log_entries(root)[:-1]:
        entry.unlink()


# A chain and what is done to it


def lake_of(stores: int, seed: int):
    """A chain whose lake is complete. Each store has two files, and `DAY` had two batches."""
    return Prepared(stores, seed)


class Prepared:
    def __init__(self, stores: int, seed: int):
        self.chain = chain_of(sales_of(stores, seed), first=FIRST, last=LAST)

    def __enter__(self) -> Chain:
        chain = self.chain.__enter__()
        try:
            each(chain.busiest_first, lambda store: chain.backfill(store, wait=0))
            chain.ribera("sweep")
            send_a_change_of(chain, chain.busiest_first)
            expect_right(chain, "at the start")
        except BaseException:
            self.chain.__exit__(*sys.exc_info())
            raise
        return chain

    def __exit__(self, *what) -> None:
        self.chain.__exit__(*what)


def sales_of(stores: int, seed: int) -> pl.DataFrame:
    """Sales of every store on every day, each store's with amounts of its own."""
    one = next(one for one in chains_from(seed) if lines_of_the_day(one) >= 3)
    of = [pl.lit(store, one.schema["store"]).alias("store") for store in range(1, stores + 1)]
    return pl.concat([one.with_columns(store, pl.col("centavos") + store) for store in of])


def chains_from(seed: int):
    """Generated sales of one store by seed: a store can sell nothing on a day, so the caller takes the first that serves."""
    for offset in range(100):
        yield sales.generated(1, seed + offset, FIRST, LAST, lines_per_day=60)


def lines_of_the_day(one: pl.DataFrame) -> int:
    return one.filter(pl.col("fecha") == date.fromisoformat(DAY)).height


def each(stores: list[str], do) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(do, stores))


def send_a_change_of(chain: Chain, stores: list[str], ok: tuple[int, ...] = (0,)) -> None:
    """One line of `DAY` costs a cent more; the agents send the day, and all that waits is ingested."""
    for store in stores:
        till = sqlite3.connect(chain.pos / f"{store}.db")
        with till:
            one = "SELECT MIN(ticket_id) FROM ticket WHERE fecha = ?"
            till.execute(f"UPDATE ticket_linea SET importe_centavos = importe_centavos + 1 WHERE ticket_id = ({one})", (DAY,))
        till.close()
    each(stores, lambda store: chain.agent(store, "extract", "--from", DAY, "--to", DAY, "--wait-acks", "0"))
    chain.ribera("sweep", ok=ok)


def repair_and_recover(chain: Chain, *words: str) -> None:
    """What the documentation says: repair, then the commands that `ribera recover` prints. `words` are for the judge."""
    chain.ribera("repair", "ventas", ok=(0, 1))
    wrong_is_not_complete(chain)
    check(not named_by_verify(chain), "no file of another program is left")
    chain.ribera("sweep")
    wrong_is_not_complete(chain)
    days = ["--from", str(FIRST), "--to", str(LAST)]
    steps = chain.ribera_json("recover", "--dataset", "ventas", *days, ok=(0, 1))["steps"]
    each(chain.busiest_first, lambda store: run_steps(chain, [step for step in steps if step["store"] == store]))
    chain.ribera("sweep")
    expect_right(chain, "after the repair")
    chain.ribera("verify")
    chain.ribera("repair", "ventas")
    judged(chain, *words)


def run_steps(chain: Chain, steps: list[dict]) -> None:
    for step in steps:
        chain.agent(step["store"], *shlex.split(step["command"])[1:])


def as_an_older_release_wrote_it(chain: Chain) -> None:
    """The protocol of the time before our writer feature, in place of ours."""
    for entry in log_entries(table(chain)):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for action in actions:
            if "protocol" in action:
                action["protocol"] = {"minReaderVersion": 1, "minWriterVersion": 2}
        entry.write_text("".join(json.dumps(action) + "\n" for action in actions))


def drop_the_feature(chain: Chain) -> None:
    """Another program takes our writer feature off the table."""
    entry = table(chain) / "_delta_log" / f"{version(chain) + 1:020}.json"
    entry.write_text(json.dumps({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}) + "\n")


def write_untagged_checkpoint(root: Path) -> None:
    """The newest state as a checkpoint in Snappy, as programs write it that do not know `add.tags`."""
    newest = DeltaTable(root)
    newest.create_checkpoint()
    path = checkpoint_of(root, newest.version())
    rows = parquet.read_table(path)
    column = rows.column_names.index("add")
    adds = rows.column(column).combine_chunks()
    fields = [adds.type.field(index) for index in range(adds.type.num_fields)]
    kept = [field for field in fields if field.name != "tags"]
    check(len(kept) == len(fields) - 1, "the checkpoint has tags to lose")
    values = [adds.field(field.name) for field in kept]
    without = pyarrow.StructArray.from_arrays(values, fields=kept, mask=adds.is_null())
    parquet.write_table(rows.set_column(column, "add", without), path, compression="snappy")


def attempt(word: str, do, *words) -> str | None:
    """Runs what another program does; gives why it was refused."""
    try:
        do(*words)
        return None
    except Exception as error:  # each program has exceptions of its own
        why = str(error).replace("\n", " ")
        print(f"  {word}: refused: {why[:160]}", flush=True)
        return why


def check_refused(do, root: Path, word: str) -> None:
    name = getattr(do, "__name__", word)
    why = attempt(name if name != "<lambda>" else word, do, root, word)
    check(why is not None, f"{name} {word} is refused")
    check("feature" in why.lower() or "writer" in why.lower(), f"{name} is refused for the writer feature, got {why}")


# What can be seen from outside


def table(chain: Chain) -> Path:
    return chain.store / "lake" / "ventas"


def log_entries(root: Path) -> list[Path]:
    return sorted((root / "_delta_log").glob("*.json"))


def checkpoint_of(root: Path, version: int) -> Path:
    return root / "_delta_log" / f"{version:020}.checkpoint.parquet"


def version(chain: Chain) -> int:
    return int(log_entries(table(chain))[-1].stem)


def stores_added_to(chain: Chain, was: int) -> set[str]:
    """The stores that have new files since version `was`, by the log's own text."""
    return {store for version, add in adds(chain) if version > was for store in stores_of(chain, add)}


def adds(chain: Chain) -> list[tuple[int, dict]]:
    """Every file that the log names, with its version."""
    entries = [(int(entry.stem), entry.read_text().splitlines()) for entry in log_entries(table(chain))]
    actions = [(version, json.loads(line)) for version, lines in entries for line in lines]
    return [(version, action["add"]) for version, action in actions if "add" in action]


def stores_of(chain: Chain, add: dict) -> set[str]:
    """The stores that a file can have rows of, by its statistics: all, if they do not say."""
    statistics = json.loads(add.get("stats") or "{}")
    first, last = (statistics.get(name, {}).get("store_id") for name in ("minValues", "maxValues"))
    return {store for store in chain.busiest_first if first is None or first <= store <= last}


def of_day(store: str) -> str:
    return f"store_id = '{store}' AND fecha = '{DAY}'"


def rows_of_day(root: Path, store: str) -> pl.DataFrame:
    return pl.scan_delta(str(root)).filter(pl.col("store_id") == store, pl.col("fecha") == date.fromisoformat(DAY)).collect()


def lake_now(chain: Chain) -> dict:
    """Rows and sums of each store-day, which Polars and DuckDB must read alike."""
    polars, duckdb = (judge.lake_days(judge.read(reader, table(chain), None)) for reader in ("polars", "duckdb"))
    check(polars == duckdb, "Polars and DuckDB read the same rows")
    return polars


def tills(chain: Chain) -> dict:
    return judge.till_days(chain.pos)


def part(days: dict, store: str) -> dict:
    return {key: facts for key, facts in days.items() if key[0] == store}


def wrong_days(chain: Chain) -> list[tuple[str, str]]:
    return judge.differing_days(lake_now(chain), tills(chain))


def states_by_store(chain: Chain) -> dict[str, str]:
    """A character for each day: C complete, P partial, M missing."""
    days = ["--from", str(FIRST), "--to", str(LAST), "--all"]
    return {store["store"]: store["days"] for store in chain.ribera_json("coverage", *days)["stores"]}


def wrong_is_not_complete(chain: Chain) -> list[tuple[str, str]]:
    """The store-days whose rows differ from the till's; none of them is called complete."""
    states, wrong = states_by_store(chain), wrong_days(chain)
    for store, day in wrong:
        index = (date.fromisoformat(day) - FIRST).days
        check(states[store][index] != "C", f"{store} {day} differs from the till, and is called complete")
    return wrong


def named_by_verify(chain: Chain) -> set[str]:
    """The stores of which a file is of another program, by `ribera verify`."""
    report = chain.ribera_json("verify", ok=(0, 1))
    findings = [finding for one in report["tables"] for finding in one["findings"] if finding["kind"] == "foreign_file"]
    if findings:
        check("ribera repair ventas" in chain.ribera("verify", ok=(1,)), "verify names the command that repairs")
    known = {Path(add["path"]).name: stores_of(chain, add) for _, add in adds(chain)}
    named = set()
    for name in (Path(finding["path"]).name for finding in findings):
        # A file of ours says its store in its name, whatever became of the log.
        own = re.fullmatch(r"part-[0-9a-f]{32}-(.+)[.]parquet", name)
        named |= {own[1]} if own else known[name]
    return named


def expect_right(chain: Chain, when: str) -> None:
    wrong = wrong_days(chain)
    check(not wrong, f"{when} the lake equals the tills, got differences in {wrong[:5]}")
    all_complete(chain, len(chain.busiest_first))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("RIBERA_SEED") or random.randrange(1_000_000)))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("scenarios", nargs="*")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(scenario.__name__ for scenario in SCENARIOS))
        return 0
    print(f"seed {arguments.seed} (again with RIBERA_SEED={arguments.seed})", flush=True)
    failed = 0
    for scenario in SCENARIOS:
        if arguments.scenarios and not any(part in scenario.__name__ for part in arguments.scenarios):
            continue
        begin, verdict = time.monotonic(), "ok"
        try:
            scenario(arguments.seed)
        except Exception:
            verdict, failed = "FAILED\n" + traceback.format_exc(), failed + 1
        print(f"foreign {scenario.__name__} ... {time.monotonic() - begin:.1f} s {verdict}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
