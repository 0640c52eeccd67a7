"""SIGKILL at random moments: agents send days again, again and again, while each of them, and now and then
the host, is killed. Every other agent is the program `run`, which sends what the till sold since and carries out a backfill
beside that. Afterwards everything is started once more, and the lake must hold every row of the tills exactly once.

    crash.py [--kills N] [--stores N] [--seed N]

N agents are killed at work: some at any moment, some soon after a certain step of extraction, of spooling
or of uploading, whichever was hit least so far; what an agent was about when it died is the last step that
it told. A run in which one of them is hit in less than a tenth of the kills fails. Prints rows lost and doubled and, as
none were seen in N kills, the upper bound of the chance of a loss per kill at 95 % confidence: 3/N.
"""

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

from scenario import all_complete, chain_of, check, expectations, judged

import sales

import judge  # noqa: I001  (the path is set by `scenario`)
import polars as pl
from chain import Chain

# The stores closed the day before yesterday: the days before it are daily work, those before them history. Yesterday is
# not over by the stores' clock, five hours behind UTC, while it is before eight in the morning here.
LAST = date.today() - timedelta(days=2)
FIRST = LAST - timedelta(days=49)
DAILY_DAYS = 5
DAYS_MAX = 9
# Of the agents that are killed at work, so many at least had a backfill beside: one in.
BESIDE_ONE_IN = 10
# Agents at work at once.
AT_ONCE = 3
# A host is killed once for so many agents.
AGENTS_PER_HOST = 10
TOLD = "ribera_agent::step"
PHASES = {
    "extraction": ("source.query", "spool.create"),
    "spooling": ("spool.write", "spool.sync", "spool.rename", "spool.sync_folder"),
    "uploading": ("epoch.claim", "upload.file", "upload.manifest", "differing.put"),
    "acknowledging": ("ack.read", "spool.prune", "heartbeat.put"),
}
PHASE_OF = {step: phase for phase, steps in PHASES.items() for step in steps}
HIT_OFTEN = ("extraction", "spooling", "uploading")
# Steps that few runs have: nothing waits for them.
RARE = ("epoch.claim", "differing.put")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stores", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("RIBERA_SEED") or random.randrange(1_000_000)))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed} (again with RIBERA_SEED={arguments.seed})", flush=True)
    table = sales.generated(arguments.stores, arguments.seed, FIRST, LAST, lines_per_day=25)
    with chain_of(table, first=FIRST, last=LAST) as chain:
        crash = Crash(chain, random.Random(arguments.seed), arguments.kills)
        crash.strike()
        crash.recover()
        table = pl.concat([table, *crash.sold])
        lost, doubled = lost_and_doubled(chain, table)
        kills = sum(crash.killed.values())
        phases = ", ".join(f"{phase} {crash.killed.get(phase, 0)}" for phase in [*PHASES, "starting"])
        print(
            f"crash: {kills} agents killed at work ({phases}; {crash.beside} with a backfill beside daily work)"
            f" and {crash.hosts} hosts, {len(crash.sold)} tickets sold meanwhile,"
            f" {crash.too_late} agents had ended before; lost {lost}, doubled {doubled};"
            f" chance of a loss per kill below {3 / kills:.4f} (95 %)",
            flush=True,
        )
        check(lost == doubled == 0, f"no row lost or doubled, got {lost} and {doubled}")
        for phase in HIT_OFTEN:
            hits = crash.killed.get(phase, 0)
            check(hits * 10 >= arguments.kills, f"{phase} is hit in a tenth of the kills at least, got {hits}")
        check(crash.hosts > 0, "a host was killed at work")
        few = arguments.kills // BESIDE_ONE_IN
        check(crash.beside >= few, f"{few} had a backfill beside daily work at least, got {crash.beside}")
        judged(chain, expect=expectations(table))
        all_complete(chain, arguments.stores)
        chain.ribera("verify")
    print("crash result: ok", flush=True)
    return 0


class Crash:
    def __init__(self, chain: Chain, rng: random.Random, kills: int):
        self.chain, self.rng, self.kills = chain, rng, kills
        self.killed: dict[str, int] = {}
        self.hosts, self.too_late, self.beside = 0, 0, 0
        # What tills sold since the chain was made, in the columns of its table.
        self.sold: list[pl.DataFrame] = []
        # How long an agent's work takes here, for those killed at any moment.
        self.work_seconds = 1.0
        chain.start_host()

    def strike(self) -> None:
        began = told = time.monotonic()
        rounds = 0
        while not self.is_done():
            rounds += 1
            check(rounds < 20 + 3 * self.kills, f"agents die as they should, got {self.killed}, {self.too_late} too late")
            self.round()
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"  {sum(self.killed.values())} kills in {told - began:.0f} s", flush=True)

    def round(self) -> None:
        """Some agents at work, each killed on its own; perhaps the host too."""
        rng = self.rng
        names = rng.sample(self.chain.busiest_first, min(AT_ONCE, len(self.chain.busiest_first)))
        runs = [rng.random() < 0.5 for _ in names]
        self.sold += [sell(self.chain, name, rng) for name, run in zip(names, runs, strict=True) if run]
        victims = [
            Victim(self.chain, name, rng, self.phase(), self.work_seconds, run)
            for name, run in zip(names, runs, strict=True)
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            done = [pool.submit(victim.run) for victim in victims]
            if self.hosts * AGENTS_PER_HOST <= sum(self.killed.values()):
                # A manifest waits for a moment only.
                while not self.chain.waiting() and not all(one.done() for one in done):
                    time.sleep(0.001)
                self.kill_host()
            [one.result() for one in done]
        for victim in victims:
            if victim.phase is None:
                self.too_late += 1
                self.work_seconds = 0.8 * self.work_seconds + 0.2 * victim.seconds
            else:
                self.killed[victim.phase] = self.killed.get(victim.phase, 0) + 1
                self.beside += victim.had_backfill

    def phase(self) -> str | None:
        """Where the next is to die: anywhere, or in the phase that was hit least."""
        if self.rng.random() < 0.25:
            return None
        return min(HIT_OFTEN, key=lambda phase: (self.killed.get(phase, 0), self.rng.random()))

    def is_done(self) -> bool:
        enough = self.hosts > 0 and self.beside * BESIDE_ONE_IN >= self.kills and all(self.killed.get(phase, 0) * 10 >= self.kills for phase in HIT_OFTEN)
        return sum(self.killed.values()) >= self.kills and enough

    def kill_host(self) -> None:
        self.hosts += self.chain.waiting() > 0
        self.chain.host.kill()
        self.chain.host.wait()
        self.chain.stop_host()
        self.chain.start_host()

    def recover(self) -> None:
        """What an operator does after a bad day: nothing but start everything again."""
        self.chain.backfill_all(self.chain.busiest_first)
        self.chain.ribera("sweep")
        self.chain.wait_until_settled()


class Victim:
    """An agent that is killed: at any moment, or a little after it told of a certain step for the n-th time."""

    def __init__(self, chain: Chain, name: str, rng: random.Random, phase: str | None, work_seconds: float, run: bool):
        first = FIRST + timedelta(days=rng.randrange((LAST - FIRST).days + 1))
        last = min(LAST, first + timedelta(days=rng.randrange(DAYS_MAX)))
        force = ["--force"] if rng.random() < 0.9 else []
        days = ["--from", str(first), "--to", str(last)]
        # With an order that it hears once it runs.
        self.order = chain.agent_command(name, "backfill", *days, *force) if run else None
        extract = ["extract", *days, *force, "--wait-acks", "2"]
        self.words = chain.agent_command(name, *(["run"] if run else extract))
        self.log, self.environment = chain.folder / "agents.log", chain.environment()
        self.target = rng.choice([step for step in PHASES[phase] if step not in RARE]) if phase else None
        self.nth = rng.randint(1, max(1, (last - first).days + 1))
        # It would go on for ever.
        self.ends_after = 3 + 6 * work_seconds if run else None
        if phase is None:
            self.delay = rng.uniform(0, 1.2 * work_seconds)
        else:
            # Reading a small till is soon over.
            self.delay = 0 if phase == "extraction" else rng.choice([0, rng.uniform(0, 0.004)])
        # The phase in which it died; none if it had ended before.
        self.phase: str | None = None
        self.had_backfill = False
        self.seconds = 0.0

    def run(self) -> None:
        begin = time.monotonic()
        environment = {**self.environment, "RIBERA_LOG": "warn,ribera_agent::step=trace", "NO_COLOR": "1"}
        with open(self.log, "ab") as out:
            agent = subprocess.Popen(
                self.words, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, text=True
            )
        timer = None
        ends_after = self.delay if self.target is None else self.ends_after
        if ends_after is not None:
            timer = threading.Timer(ends_after, agent.kill)
            timer.start()
        steps, order = [], None
        for line in agent.stderr:
            if TOLD not in line:
                continue
            step = line.split()[-1]
            steps.append(step)
            if self.order and order is None:
                # It holds its folder now.
                order = subprocess.Popen(
                    self.order, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment
                )
            if step == self.target and steps.count(step) == self.nth:
                time.sleep(self.delay)
                agent.kill()
        code = agent.wait()
        agent.stderr.close()
        if timer:
            timer.cancel()
        self.seconds = time.monotonic() - begin
        if order:
            # Left with the agent before that died; else it carries the backfill out itself now.
            self.had_backfill = order.poll() == 0
            order.wait()
        if code == -9:
            # The journal is written by all: what it is written for is what came before.
            known = [PHASE_OF[step] for step in steps if step in PHASE_OF]
            self.phase = known[-1] if known else "starting"


def sell(chain: Chain, name: str, rng: random.Random) -> pl.DataFrame:
    """A ticket of one line on one of the last days."""
    day = LAST - timedelta(days=rng.randrange(DAILY_DAYS))
    cents = rng.randrange(1, 10_000)
    till = sqlite3.connect(chain.pos / f"{name}.db", timeout=30)
    with till:
        [(ticket,)] = till.execute("SELECT MAX(ticket_id) + 1 FROM ticket")
        till.execute("INSERT INTO ticket VALUES (?, ?, '12:00:00', NULL)", (ticket, str(day)))
        till.execute("INSERT INTO ticket_linea VALUES (?, 1, 1, 1, ?, 0, ?)", (ticket, cents * 100, cents))
    till.close()
    of_store = chain.table.filter(pl.col("store").map_elements(sales.store_id, return_dtype=pl.String) == name)
    return of_store.head(1).with_columns(
        ticket_id=pl.lit(ticket, pl.Int64), linea=pl.lit(1, pl.Int32), fecha=pl.lit(day), cantidad=pl.lit(1, pl.Int64),
        centavos=pl.lit(cents, pl.Int64),
    )


def lost_and_doubled(chain: Chain, table: pl.DataFrame) -> tuple[int, int]:
    key = ["store_id", "ticket_id", "linea"]
    root = judge.table_root(chain.store, "ventas")
    lake = judge.read("deltalake", root, None).select(key)
    tills = table.select(
        store_id=pl.format("tienda-{}", "store"), ticket_id=pl.col("ticket_id").cast(pl.String), linea="linea"
    )
    lost = tills.join(lake, on=key, how="anti").height
    return lost, lake.height - lake.unique().height


if __name__ == "__main__":
    sys.exit(main())
