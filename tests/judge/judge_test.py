"""The judge itself is on trial: it must accept what is right and name what is not. The lakes here
are written by deltalake, so that nothing of Ribera is needed."""

import os
import subprocess
import sys
import tempfile
import unittest
from datetime import date
from pathlib import Path

import polars as pl

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "judge"), str(TESTS / "fixtures")]

import judge  # noqa: E402
import pos  # noqa: E402
import sales  # noqa: E402

SALES = sales.generated(3, seed=7, first=date(2017, 1, 28), last=date(2017, 2, 5), lines_per_day=30)


class JudgeTest(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.folder = Path(work.name)
        pos.make_sqlite(SALES, self.folder / "pos")
        self.lake = self.write("lake", lake_rows(SALES))

    def write(self, name: str, rows: pl.DataFrame, **options) -> Path:
        root = self.folder / name / "lake" / "ventas"
        rows.write_delta(root, delta_write_options={"partition_by": ["store_id", "month"]}, **options)
        return self.folder / name

    def run_judge(self, *words) -> tuple[int, str]:
        command = [sys.executable, str(TESTS / "judge" / "judge.py"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_a_right_lake_is_accepted_by_every_reader(self):
        expected = [f"rows={SALES.height}", f"quantity={SALES['cantidad'].sum()}", f"sales_value={SALES['centavos'].sum() / 100:.2f}"]
        code, text = self.run_judge(self.lake, "--sources", self.folder / "pos", "--expect", *expected)
        self.assertEqual(code, 0, text)
        self.assertIn("deltalake, polars, duckdb, clickhouse, clickhouse-kernel", text)

    def test_a_wrong_expectation_is_named(self):
        code, text = self.run_judge(self.lake, "--expect", f"rows={SALES.height + 1}")
        self.assertEqual(code, 1, text)
        self.assertIn(f"rows: expected {SALES.height + 1}, found {SALES.height}", text)

    def test_a_cent_that_moved_between_two_lines_of_different_days_is_found(self):
        rows = lake_rows(SALES).sort("store_id", "fecha")
        cent = pl.lit("0.01").cast(pl.Decimal(18, 2))
        index = pl.int_range(pl.len())
        moved = pl.when(index == 0).then(pl.col("total") + cent).when(index == pl.len() - 1).then(pl.col("total") - cent)
        lake = self.write("moved", rows.with_columns(total=moved.otherwise(pl.col("total")).cast(pl.Decimal(18, 2))))
        code, text = self.run_judge(lake, "--sources", self.folder / "pos")
        self.assertEqual(code, 1, text)
        self.assertIn("2 store-days differ in all", text)

    def test_a_lost_and_a_doubled_row_are_found_by_day_and_by_content(self):
        rows = lake_rows(SALES)
        lake = self.write("doubled", pl.concat([rows.slice(1), rows.slice(5, 1)]))
        code, text = self.run_judge(lake, "--sources", self.folder / "pos", "--expect", f"content={judge.content_hash(rows)}")
        self.assertEqual(code, 1, text)
        self.assertIn("store-days differ", text)
        self.assertIn("content: expected", text)

    def test_content_depends_on_neither_order_nor_files(self):
        rows = lake_rows(SALES)
        lake = self.write("parts", rows.slice(0, 50))
        self.write("parts", rows.slice(50).sample(fraction=1, shuffle=True, seed=1), mode="append")
        code, text = self.run_judge(lake, "--expect", f"content={judge.content_hash(rows)}", f"rows={rows.height}")
        self.assertEqual(code, 0, text)

    def test_an_older_version_is_read_by_every_reader_that_can_go_back(self):
        self.write("lake", lake_rows(SALES).slice(0, 3), mode="append")
        code, text = self.run_judge(self.lake, "--version", 0, "--expect", f"rows={SALES.height}")
        self.assertEqual(code, 0, text)
        self.assertIn("deltalake, polars, duckdb, clickhouse-kernel", text)
        code, text = self.run_judge(self.lake, "--version", 0, "--readers", "clickhouse")
        self.assertEqual(code, 2, text)

    def test_a_reader_that_is_not_known_is_a_bad_call(self):
        code, text = self.run_judge(self.lake, "--readers", "spark")
        self.assertEqual(code, 2, text)
        self.assertIn("must be one of deltalake", text)

    def test_each_reader_alone_finds_the_row_that_is_missing(self):
        lake = self.write("lost", lake_rows(SALES).slice(1))
        for reader in judge.READERS:
            code, text = self.run_judge(lake, "--readers", reader, "--expect", f"rows={SALES.height}")
            self.assertEqual(code, 1, f"{reader}: {text}")

    def test_a_file_that_is_gone_is_no_clean_verdict(self):
        next((self.lake / "lake" / "ventas").rglob("*.parquet")).unlink()
        code, text = self.run_judge(self.lake)
        self.assertNotEqual(code, 0, text)

    def test_a_folder_without_a_table_is_a_bad_call(self):
        code, text = self.run_judge(self.folder / "pos")
        self.assertEqual(code, 2, text)
        self.assertIn("no Delta table", text)


class SalesTest(unittest.TestCase):
    def test_without_network_generated_sales_are_used_and_it_is_said(self):
        with tempfile.TemporaryDirectory() as empty:
            program = "import sales; table, origin = sales.load(2, seed=1); print(table.height, origin)"
            environment = {**os.environ, "RIBERA_TOOLS": empty, "PIP_NO_INDEX": "1"}
            done = subprocess.run(
                [sys.executable, "-B", "-c", program], capture_output=True, text=True, check=True,
                cwd=TESTS / "fixtures", env=environment,
            )
        rows, origin = done.stdout.split()
        self.assertEqual(origin, "generated")
        self.assertGreater(int(rows), 10_000)
        self.assertIn("generated ones are used", done.stderr)


def lake_rows(table: pl.DataFrame) -> pl.DataFrame:
    money = pl.col("centavos").cast(pl.Decimal(18, 2)) * pl.lit("0.01").cast(pl.Decimal(18, 2))
    return table.select(
        store_id=pl.format("tienda-{}", "store"),
        month=pl.col("fecha").dt.to_string("%Y-%m"),
        fecha="fecha",
        ticket_id=pl.col("ticket_id").cast(pl.String),
        linea="linea",
        vendido_en=pl.col("local").dt.replace_time_zone(sales.ZONE).dt.convert_time_zone("UTC"),
        cliente_id=pl.col("cliente_id").cast(pl.String),
        cantidad=pl.col("cantidad").cast(pl.Decimal(18, 3)),
        total=money.cast(pl.Decimal(18, 2)),
    )


if __name__ == "__main__":
    unittest.main(verbosity=2)
