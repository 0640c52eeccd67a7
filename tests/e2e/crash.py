"""SIGKILL at random moments: agents send days again while they, or the host, are killed. Afterwards
everything is started once more, and the lake must hold every row of the tills exactly once.

    crash.py [--kills N] [--stores N] [--seed N]

Prints rows lost and doubled and, as none were seen in N kills, the upper bound of the chance of a
loss per kill at 95 % confidence: 3/N.
"""

import argparse
import os
import random
import subprocess
import sys
import time

from scenario import all_complete, chain_of, check, expectations, judged, small_sales

import judge  # noqa: I001  (the path is set by `scenario`)
import polars as pl
from chain import Chain

MONTHS = [("2017-01-20", "2017-01-31"), ("2017-02-01", "2017-02-28"), ("2017-03-01", "2017-03-10")]
# Agents at work when something is killed.
AT_ONCE = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stores", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("RIBERA_SEED") or random.randrange(1_000_000)))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed} (again with RIBERA_SEED={arguments.seed})", flush=True)
    table = small_sales(arguments.stores, arguments.seed)
    with chain_of(table) as chain:
        crash = Crash(chain, random.Random(arguments.seed))
        for _ in range(arguments.kills):
            crash.round()
        crash.recover()
        lost, doubled = lost_and_doubled(chain, table)
        bound = 3 / arguments.kills
        print(
            f"crash: {crash.killed['agent']} agents and {crash.killed['host']} hosts killed at work,"
            f" {crash.too_late} had ended before; lost {lost}, doubled {doubled};"
            f" chance of a loss per kill below {bound:.3f} (95 %)",
            flush=True,
        )
        check(lost == doubled == 0, f"no row lost or doubled, got {lost} and {doubled}")
        judged(chain, expect=expectations(table))
        all_complete(chain, arguments.stores)
        chain.ribera("verify")
    print("crash result: ok", flush=True)
    return 0


class Crash:
    def __init__(self, chain: Chain, rng: random.Random):
        self.chain, self.rng = chain, rng
        self.killed, self.too_late = {"agent": 0, "host": 0}, 0
        # How long an agent's work takes here: kills are spread over one and a half of it.
        self.work_seconds = 1.0
        chain.start_host()

    def round(self) -> None:
        """Agents at work; one of them, or the host, is killed at a random moment. Counts only when
        the victim was alive."""
        for _ in range(50):
            if self.try_round():
                return
        raise AssertionError("no victim was ever alive")

    def try_round(self) -> bool:
        chain, rng = self.chain, self.rng
        begin = time.monotonic()
        agents = [self.start_agent(name) for name in rng.sample(chain.busiest_first, min(AT_ONCE, len(chain.busiest_first)))]
        time.sleep(rng.uniform(0, 1.2 * self.work_seconds))
        at_work = any(agent.poll() is None for agent in agents)
        victim = "host" if rng.random() < 0.5 else "agent"
        if victim == "host":
            chain.host.kill()
            chain.host.wait()
        else:
            agents[0].kill()
            at_work = agents[0].poll() is None
        for agent in agents:
            agent.wait()
        if victim == "host":
            chain.stop_host()
            chain.start_host()
        else:
            self.work_seconds = 0.8 * self.work_seconds + 0.2 * (time.monotonic() - begin)
        self.killed[victim] += at_work
        self.too_late += not at_work
        return at_work

    def start_agent(self, name: str) -> subprocess.Popen:
        first, last = self.rng.choice(MONTHS)
        force = ["--force"] if self.rng.random() < 0.7 else []
        words = self.chain.agent_command(name, "extract", "--from", first, "--to", last, *force, "--wait-acks", "2")
        log = open(self.chain.folder / "agents.log", "ab")
        agent = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        return agent

    def recover(self) -> None:
        """What an operator does after a bad day: nothing but start everything again."""
        self.chain.backfill_all(self.chain.busiest_first)
        self.chain.ribera("sweep")
        self.chain.wait_until_settled()


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
