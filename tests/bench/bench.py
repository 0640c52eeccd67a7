"""`./run bench [NAME...]`: measures against the figures that the project set itself.

Each benchmark prints a table and writes target/bench/NAME.json. Options are environment
variables: RIBERA_BENCH_CACHE (folder of peers and data), RIBERA_BENCH_ROWS (rows of `agent` and `till`),
RIBERA_BENCH_TIMES (alternating runs of each side, 3), RIBERA_BENCH_LAYOUT and others
of its own (see runner/bench_layout.py), RIBERA_BENCH_BUILD=no (measures the programs
as they were built last).
"""

import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from runner import place  # noqa: E402

NAMES = ("agent", "till", "ingest", "commit", "history", "host", "layout")


def main():
    asked = sys.argv[1:] or list(NAMES)
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    missed = []
    for name in asked:
        report = place.report(name)
        print(f"== {name}", flush=True)
        importlib.import_module(f"runner.bench_{name}").run(report)
        report.write()
        report.print_table()
        missed += [f"{name}: {row['what']}" for row in report.rows if row["met"] is False]
    if missed:
        print(f"\nnot met: {len(missed)}")
        for what in missed:
            print(f"  {what}")


if __name__ == "__main__":
    main()
