"""End to end with the real programs: tills -> agents -> host with WASM components -> lake, judged by
independent readers. One scenario after another, each in a folder of its own.

    run.py [--stores N] [--seed N] [--list] [SCENARIO...]
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scenario import READERS_OF_NEW_COLUMNS, TESTS, all_complete, chain_of, check, expectations, judged, small_sales

from chain import BIN, ROOT, SOURCES, run  # noqa: I001  (the path is set by `scenario`)
import demo
from deltalake import DeltaTable

EXPECTED: dict[tuple[int, int], str] = {}


def sales_arrive_whole_and_running_again_changes_nothing(stores: int, seed: int) -> None:
    table = small_sales(stores, seed)
    with chain_of(table) as chain:
        chain.start_host()
        chain.backfill_all(chain.busiest_first)
        chain.wait_until_settled()
        first = judged(chain, expect=expectations(table))
        all_complete(chain, stores)
        chain.backfill_all(chain.busiest_first)
        chain.wait_until_settled()
        second = judged(chain)
        check(first == second, f"the lake is as before, got {first} and then {second}")
        EXPECTED[stores, seed] = first["content"]


def all_events_lost_then_one_sweep_gives_the_same_lake(stores: int, seed: int) -> None:
    with chain_of(small_sales(stores, seed)) as chain:
        send_without_host(chain)
        check(chain.waiting() > 0, "manifests wait while nobody listens")
        chain.ribera("sweep")
        check(chain.waiting() == 0, f"one sweep settles all, {chain.waiting()} still wait")
        same_content(judged(chain)["content"], stores, seed)
        all_complete(chain, stores)


def events_doubled_and_shuffled_with_sixteen_calls_at_once_give_the_same_lake(stores: int, seed: int) -> None:
    rng = random.Random(seed)
    with chain_of(small_sales(stores, seed)) as chain:
        send_without_host(chain)
        names = [str(path.relative_to(chain.store)) for path in (chain.store / "inbox").rglob("*.json")]
        copies = chain.folder / "copies"
        shutil.copytree(chain.store / "inbox", copies)
        page = chain.start_host()
        # A sweep by another process, beside the host and all the events.
        sweep = subprocess.Popen([str(BIN / "ribera"), "--lake", str(chain.store), "sweep"], stdout=subprocess.DEVNULL)
        events = names * 2
        rng.shuffle(events)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: post_event(page, [name]), events))
        check(sweep.wait(120) == 0, "the sweep beside the host ends well")
        chain.wait_until_settled()
        first = judged(chain)
        same_content(first["content"], stores, seed)
        # The same manifests delivered once more, long after they were settled.
        shutil.copytree(copies, chain.store / "inbox", dirs_exist_ok=True)
        chain.ribera("sweep")
        chain.wait_until_settled()
        check(judged(chain) == first, "manifests delivered again change nothing")


def late_rows_voids_and_corrections_are_found_again(stores: int, seed: int) -> None:
    with chain_of(small_sales(stores, seed)) as chain:
        chain.start_host()
        chain.backfill_all(chain.busiest_first)
        chain.wait_until_settled()
        before = judged(chain)
        store = chain.busiest_first[0]
        till = sqlite3.connect(chain.pos / f"{store}.db")
        with till:
            days = [day for (day,) in till.execute("SELECT DISTINCT fecha FROM ticket ORDER BY fecha")]
            voided, corrected, late = days[3], days[10], days[20]
            till.execute("DELETE FROM ticket_linea WHERE ticket_id IN (SELECT ticket_id FROM ticket WHERE fecha = ?)", (voided,))
            till.execute("DELETE FROM ticket WHERE fecha = ?", (voided,))
            one = "SELECT MIN(ticket_id) FROM ticket WHERE fecha = ?"
            till.execute(f"UPDATE ticket_linea SET importe_centavos = importe_centavos + 1 WHERE ticket_id = ({one})", (corrected,))
            till.execute("INSERT INTO ticket VALUES (5, ?, '23:59:59', NULL)", (late,))
            till.execute("INSERT INTO ticket_linea VALUES (5, 1, 77, 3, 10000, 0, 300)")
        till.close()
        chain.backfill(store)
        chain.wait_until_settled()
        after = judged(chain)
        check(after["content"] != before["content"], "the corrections are in the lake")
        all_complete(chain, stores)


def a_gap_and_a_damaged_batch_show_and_the_printed_commands_recover_them(stores: int, seed: int) -> None:
    folder_words = ["--stores", str(max(3, stores)), "--once", "--seed", str(seed)]
    with chain_folder() as folder:
        words = [sys.executable, "-B", str(TESTS / "demo" / "demo.py"), "--folder", folder, *folder_words]
        done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"the demo ends well: {done.stderr[-3000:]}")
        result = json.loads(done.stdout.strip().splitlines()[-1])
        check(result["days_missing"] == 21, f"21 days missing, got {result}")
        check(result["days_partial"] == 31, f"31 days partial, got {result}")
        table, _ = demo.sales.load(max(3, stores), seed)
        chain = demo.Chain(Path(folder), table)
        try:
            chain.start_host()
            commands = demo.recovery_commands(chain)
            check(len(commands) >= 2, f"a command per gap, got {commands}")
            for command in commands:
                run(command, cwd=ROOT)
            chain.wait_until_settled()
        finally:
            chain.stop()
        days = chain.coverage()["totals"]["days"]
        check(days["missing"] == days["partial"] == 0, f"nothing is missing after recovery, got {days}")
        judged(chain, expect=expectations(table))


def every_kind_of_database_gives_the_same_lake_in_one_run(stores: int, seed: int) -> None:
    stores = max(stores, len(SOURCES))
    table = small_sales(stores, seed)
    with chain_of(table, source="all") as chain:
        kinds = {made.server.KIND for made in chain.tills.values()}
        check(len(kinds) + 1 == len(SOURCES), f"a store on each of {SOURCES}, got {kinds} and SQLite")
        chain.start_host()
        chain.backfill_all(chain.busiest_first)
        chain.wait_until_settled()
        verdict = judged(chain, expect=expectations(table))
        check(verdict["stores"] == stores, f"{stores} stores, got {verdict['stores']}")
        all_complete(chain, stores)


def a_year_of_real_sales_of_twenty_stores_on_every_kind_of_database_equals_the_tills(stores: int, seed: int) -> None:
    table, origin = demo.sales.load(20, seed)
    print(f"  {table.height} {origin} lines", flush=True)
    with chain_of(table, "all", demo.sales.FIRST_DAY, demo.sales.LAST_DAY) as chain:
        chain.start_host()
        chain.backfill_all(chain.busiest_first)
        chain.wait_until_settled()
        verdict = judged(chain, expect=expectations(table))
        sold = table.select("store", "fecha").n_unique()
        check(verdict["store_days_compared"] == sold, f"{sold} store-days compared, got {verdict['store_days_compared']}")
        days = chain.coverage()["totals"]["days"]
        check(days["missing"] == days["partial"] == 0 < days["complete"], f"every day complete, got {days}")


def merges_across_stores_corrections_and_checkpoints_keep_every_row(stores: int, seed: int) -> None:
    with chain_of(small_sales(stores, seed)) as chain:
        chain.start_host()
        chain.backfill_all(chain.busiest_first)
        # Many small files: one day sent again and again.
        for day in range(1, 10):
            chain.agent(chain.busiest_first[0], "extract", "--from", f"2017-02-0{day}", "--to", f"2017-02-0{day}", "--force", "--wait-acks", "60")
        chain.wait_until_settled()
        check_protocol(chain)
        before = judged(chain)
        check(len(before["readers"]) == 5, f"every reader is asked, got {before['readers']}")
        chain.ribera("maintain")
        check((chain.store / "lake/ventas/_delta_log/_last_checkpoint").exists(), "maintenance writes a checkpoint")
        check_protocol(chain)
        after = judged(chain)
        check(after["content"] == before["content"], "maintenance keeps the content")
        months = len(list((chain.store / "lake/ventas").glob("month=*")))
        check(after["files"] == months < before["files"], f"{months} months are a file each, got {after['files']}")
        chain.ribera("verify")
        for store in chain.busiest_first:
            chain.agent(store, "extract", "--from", "2017-02-03", "--to", "2017-02-04", "--force", "--wait-acks", "60")
        chain.wait_until_settled()
        corrected = judged(chain)
        check(corrected["content"] == before["content"], "days sent again replace those of the merged file")
        check(corrected["files"] == months + 2 * stores, f"the merged files and one of each store and day, got {corrected['files']}")
        chain.ribera("maintain")
        again = judged(chain)
        check((again["files"], again["content"]) == (months, before["content"]), "and are merged into it again")
        chain.ribera("verify")
        judged(chain, "--version", str(before["version"]), expect=[f"content={before['content']}"])


def a_column_added_and_a_vacuum_leave_every_reader_the_same_rows(stores: int, seed: int) -> None:
    table = small_sales(stores, seed)
    with chain_of(table) as chain:
        chain.start_host()
        chain.backfill_all(chain.busiest_first)
        chain.wait_until_settled()
        before = judged(chain)
        store = chain.busiest_first[0]
        add_column(chain, store, "caja", "t.ticket_id % 4")
        days = ["--from", "2017-02-01", "--to", "2017-02-05"]
        chain.agent(store, "extract", *days, "--force", "--wait-acks", "60")
        chain.wait_until_settled()
        # Rows written before the column was there have none.
        with_column = judged(chain, *READERS_OF_NEW_COLUMNS, "--without", "caja", expect=[f"content={before['content']}"])
        filled = "SELECT count(*) AS n FROM ventas WHERE caja IS NOT NULL"
        till = sqlite3.connect(chain.pos / f"{store}.db")
        [expected] = till.execute(
            "SELECT count(*) FROM ticket JOIN ticket_linea USING (ticket_id) WHERE fecha BETWEEN ? AND ?", days[1::2]
        ).fetchone()
        till.close()
        found = int(chain.ribera_json("sql", filled)["rows"][0]["n"])
        check(found == expected > 0, f"{expected} rows have the new column, got {found}")
        chain.stop_host()
        age(chain.store / "lake", days=40)
        done = chain.ribera_json("maintain")["tables"][0]
        check(done["files_deleted"] > 0, f"files replaced 40 days ago are deleted, got {done}")
        vacuumed = judged(chain, "--without", "caja", expect=[f"content={before['content']}"])
        check(vacuumed["version"] > with_column["version"], "maintenance committed")
        check("clickhouse" in vacuumed["readers"], "behind a checkpoint every reader reads it")
        check(int(chain.ribera_json("sql", filled)["rows"][0]["n"]) == expected, "the new column is kept")
        chain.ribera("verify")


def installed_programs_need_neither_the_repository_nor_its_settings(stores: int, seed: int) -> None:
    with chain_of(small_sales(1, seed)) as chain:
        home = chain.folder / "home"
        # As a shell has it after a login.
        clean = {"HOME": str(home), "PATH": os.environ["PATH"], "TMPDIR": str(chain.folder)}
        kept = {name: os.environ[name] for name in ("CARGO_TARGET_DIR", "DUCKDB_LIB_DIR") if name in os.environ}
        kept["RIBERA_TOOLS"] = str(demo.sales.cache_folder())
        done = run([str(ROOT / "infra/dev/install.sh")], env={**clean, **kept})
        bin, lib = home / ".local/bin", home / ".local/lib/ribera"
        check(done.stdout.split() == [str(bin / "ribera"), str(bin / "ribera-agent")], f"install prints both, got {done.stdout}")
        check(f'export PATH="{bin}:$PATH"' in done.stderr, f"install says what PATH lacks, got {done.stderr}")
        on_path = {**clean, "PATH": f"{bin}:{os.environ['PATH']}"}
        libraries = run(["ldd", str(lib / "ribera")], env=on_path).stdout
        check(f"{lib}/libduckdb.so" in libraries, f"the library beside the program is used, got {libraries}")
        [store] = chain.busiest_first
        days = ["--from", str(chain.first), "--to", str(chain.last)]
        run(["ribera-agent", "--config", str(chain.config(store)), "backfill", *days], env=on_path, cwd=home)
        ribera = ["ribera", "--lake", str(chain.store), "--json"]
        # Machine code that was compiled before is kept by its content: to compile takes most of a minute.
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ribera/components"
        run([*ribera, "sweep", "--cache", str(cache)], env=on_path, cwd=home)
        answer = run([*ribera, "sql", "SELECT count(*) AS n FROM ventas"], env=on_path, cwd=home)
        check(int(json.loads(answer.stdout)["rows"][0]["n"]) == chain.table.height, f"every row is there, got {answer.stdout}")
        # Again over what is there, and on a PATH that has the folder.
        done = run([str(ROOT / "infra/dev/install.sh")], env={**on_path, **kept})
        check(done.stderr == "", f"nothing is left to say, got {done.stderr}")


SCENARIOS = [
    sales_arrive_whole_and_running_again_changes_nothing,
    all_events_lost_then_one_sweep_gives_the_same_lake,
    events_doubled_and_shuffled_with_sixteen_calls_at_once_give_the_same_lake,
    late_rows_voids_and_corrections_are_found_again,
    a_gap_and_a_damaged_batch_show_and_the_printed_commands_recover_them,
    every_kind_of_database_gives_the_same_lake_in_one_run,
    merges_across_stores_corrections_and_checkpoints_keep_every_row,
    a_column_added_and_a_vacuum_leave_every_reader_the_same_rows,
    installed_programs_need_neither_the_repository_nor_its_settings,
]


def check_protocol(chain) -> None:
    """Every reader may read the table, no other writer may write it."""
    protocol = DeltaTable(chain.store / "lake/ventas").protocol()
    versions = (protocol.min_reader_version, protocol.min_writer_version)
    check(versions == (1, 7), f"reader 1 and writer 7, got {versions}")
    check(sorted(protocol.writer_features) == ["appendOnly", "invariants", "ribera"], f"our feature, got {protocol}")


def add_column(chain, store: str, name: str, sql: str) -> None:
    """Publishes the dataset with one more column, which one store's agent fills."""
    shipped = (ROOT / "storage" / "datasets" / "ventas.toml").read_text()
    file = chain.folder / "ventas.toml"
    file.write_text(f'{shipped}\n[[column]]\nname = "{name}"\ntype = "int32"\nes = "Caja"\nen = "Till"\n')
    chain.ribera("dataset", "publish", str(file))
    mapping = "[adapter.caja.ventas.columns]\n"
    config = chain.config(store)
    config.write_text(config.read_text().replace(mapping, f'{mapping}{name} = "{sql}"\n'))


def age(folder: Path, days: int) -> None:
    """Makes everything below `folder` as old as if it had been written so many days ago."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        moment = path.stat().st_mtime - days * 86_400
        if path.parent.name == "_delta_log" and path.suffix == ".json":
            entry = [json.loads(line) for line in path.read_text().splitlines()]
            for removed in (action["remove"] for action in entry if "remove" in action):
                removed["deletionTimestamp"] -= days * 86_400_000
            path.write_text("".join(json.dumps(action) + "\n" for action in entry))
        os.utime(path, (moment, moment))

# With the full counts only: `soak`, or by name.
LONG = [a_year_of_real_sales_of_twenty_stores_on_every_kind_of_database_equals_the_tills]
LONG_STORES = 20


def send_without_host(chain) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: chain.backfill(name, wait=0), chain.busiest_first))


def post_event(page: str, manifests: list[str]) -> None:
    body = json.dumps({"manifests": manifests}).encode()
    request = urllib.request.Request(f"{page.rstrip('/')}/ingest", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        check(answer.status == 200, f"POST /ingest answers 200, got {answer.status}")


def same_content(content: str, stores: int, seed: int) -> None:
    """Equal to the first scenario's lake, or, where that did not run, to a later one's."""
    first = EXPECTED.setdefault((stores, seed), content)
    check(content == first, f"the same rows as in the undisturbed run, got {content} instead of {first}")


def chain_folder():
    import tempfile

    return tempfile.TemporaryDirectory(prefix="ribera-e2e-")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("RIBERA_SEED") or random.randrange(1_000_000)))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("scenarios", nargs="*")
    arguments = parser.parse_args()
    long = LONG if arguments.stores >= LONG_STORES or arguments.scenarios else []
    known = {scenario.__name__: scenario for scenario in [*SCENARIOS, *long]}
    if arguments.list:
        print("\n".join(known))
        return 0
    asked = [name for name in known if not arguments.scenarios or any(part in name for part in arguments.scenarios)]
    print(f"seed {arguments.seed} (again with RIBERA_SEED={arguments.seed})", flush=True)
    failed = []
    for name in asked:
        begin = time.monotonic()
        try:
            known[name](arguments.stores, arguments.seed)
            verdict = "ok"
        except Exception:
            verdict = "FAILED\n" + traceback.format_exc()
            failed.append(name)
        print(f"e2e {name} ... {time.monotonic() - begin:.1f} s {verdict}", flush=True)
    print(f"e2e result: {len(asked) - len(failed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
