"""What the end-to-end suites share: small chains, the judge's verdict, checks that say what failed."""

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import date
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "fixtures"), str(TESTS / "demo"), str(TESTS / "judge")]

import polars as pl  # noqa: E402
import sales  # noqa: E402
from chain import Chain  # noqa: E402

# ClickHouse's own reader cannot read two schemas in one log: after a change of columns it waits for the next checkpoint.
READERS_OF_NEW_COLUMNS = ["--readers", "deltalake,polars,duckdb,clickhouse-kernel"]
FIRST, LAST = date(2017, 1, 20), date(2017, 3, 10)


@contextmanager
def chain_of(table: pl.DataFrame, source: str = "sqlite", first: date = FIRST, last: date = LAST):
    """A chain with its tills made and its stores declared, in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="ribera-e2e-") as folder:
        chain = Chain(Path(folder), table, first, last)
        try:
            chain.clear()
            chain.make_tills(source)
            chain.declare()
            yield chain
        finally:
            chain.stop()


def small_sales(stores: int, seed: int) -> pl.DataFrame:
    return sales.generated(stores, seed, FIRST, LAST, lines_per_day=25)


def expectations(table: pl.DataFrame) -> list[str]:
    cents = table["centavos"].sum()
    return [f"rows={table.height}", f"quantity={table['cantidad'].sum()}", f"sales_value={cents // 100}.{cents % 100:02}"]


def judged(chain: Chain, *words: str, sources: bool = True, expect: list[str] | None = None) -> dict:
    """The verdict of the independent readers, which must be clean."""
    command = [sys.executable, str(TESTS / "judge" / "judge.py"), str(chain.store), "--json"]
    if sources:
        command += ["--sources", str(chain.pos)]
        totals = chain.folder / "day_totals.json"
        totals.write_text(json.dumps(chain.day_totals()))
        command += ["--day-totals", str(totals)]
    command += ["--expect", *expect] if expect else []
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"the judge finds fault: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def all_complete(chain: Chain, stores: int) -> None:
    days = chain.coverage()["totals"]["days"]
    due = stores * ((chain.last - chain.first).days + 1)
    check(days["complete"] == due and days["missing"] == days["partial"] == 0, f"{due} days complete, got {days}")


def check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
