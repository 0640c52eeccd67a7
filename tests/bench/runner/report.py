"""Results: target/bench/NAME.json and a table for people."""

import json
import operator
import os

COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq}


class Report:
    """Collects the rows of one benchmark."""

    def __init__(self, name, target_folder):
        self.name = name
        self.path = os.path.join(target_folder, "bench", f"{name}.json")
        self.rows = []

    def add(self, what, value, unit, target=None, peer=None, peer_value=None, ratio_target=None):
        """One row. `target` such as "<= 2" bounds the value, `ratio_target` the ratio of the value
        to the peer's. `met` is None where nothing was asked; else both must hold."""
        # Words have no ratio.
        ratio = value / peer_value if peer_value and not isinstance(value, str) else None
        asked = [holds(value, target)] if target else []
        if ratio_target:
            asked.append(ratio is not None and holds(ratio, ratio_target))
        self.rows.append(
            {
                "what": what,
                "value": rounded(value),
                "unit": unit,
                "target": " and ".join(
                    part for part in (target, f"ratio {ratio_target}" if ratio_target else None) if part
                ) or None,
                "peer": {"name": peer, "value": rounded(peer_value)} if peer else None,
                "ratio": rounded(ratio),
                "met": all(asked) if asked else None,
            }
        )

    def write(self):
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(self.rows, file, indent=2, ensure_ascii=False)
            file.write("\n")

    def print_table(self):
        head = ("what", "value", "target", "peer", "ratio", "met")
        lines = [head] + [self.cells(row) for row in self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
        print(f"\n{self.name}")
        for line in lines:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        print(f"  {self.path}")

    @staticmethod
    def cells(row):
        peer = f"{row['peer']['name']}: {row['peer']['value']}" if row["peer"] else ""
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        ratio = "" if row["ratio"] is None else str(row["ratio"])
        return (row["what"], f"{row['value']} {row['unit']}", row["target"] or "", peer, ratio, met)


def holds(value, bound):
    sign, limit = bound.split()
    return COMPARE[sign](value, float(limit))


def rounded(value):
    """Four significant digits: more would claim more than was measured."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and abs(value) < 10**15:
        return value
    return float(f"{value:.4g}")
