"""Measured runs of product and peers, and what is made of several runs."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tree.py")


@dataclass
class Run:
    """One measured run of a command with everything below it."""

    wall_s: float
    cpu_s: float
    rss_bytes: int
    output: str
    extra: dict = field(default_factory=dict)

    @property
    def last_json(self):
        """The last line of standard output that is a JSON object."""
        for line in reversed(self.output.splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        raise ValueError(f"no JSON object in the output: {self.output[-400:]!r}")


def run(command, timeout_s=1800, env=None, cwd=None, ok_codes=(0,)):
    """Runs `command` and measures its process tree; raises when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        log = os.path.join(folder, "stderr")
        with open(log, "w", encoding="utf-8") as stderr:
            done = subprocess.run(
                [sys.executable, "-S", "-E", TREE, report, str(timeout_s), "--", *map(str, command)],
                stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=cwd,
                env={**os.environ, **(env or {})}, check=False,
            )
        with open(log, encoding="utf-8", errors="replace") as file:
            complaint = file.read()
        if not os.path.exists(report):
            raise RuntimeError(f"could not run {command[0]}: {complaint[-2000:]}")
        with open(report, encoding="utf-8") as file:
            found = json.load(file)
    if found["code"] not in ok_codes:
        shown = " ".join(map(str, command))
        raise RuntimeError(f"exit code {found['code']} of: {shown}\n{complaint[-3000:]}{done.stdout[-1000:]}")
    return Run(found["wall_s"], found["cpu_s"], found["rss_bytes"], done.stdout)


def alternate(candidates, times=3, say=print):
    """Runs each of `candidates` (name -> function returning a Run) in turn, `times` times over,
    so that a slow minute of the machine hits all alike. Returns name -> list of runs."""
    runs = {name: [] for name in candidates}
    for turn in range(times):
        for name, once in candidates.items():
            one = once()
            runs[name].append(one)
            say(
                f"  {turn + 1}/{times} {name}: {one.cpu_s:.2f} CPU-s, "
                f"{one.rss_bytes / 2**20:.0f} MB resident, {one.wall_s:.1f} s"
            )
    return runs


def median(runs, of):
    return statistics.median(of(one) for one in runs)
