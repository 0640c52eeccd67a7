#!/usr/bin/env python3
"""The demo: a year of sales of a grocery chain, from the stores' databases into the lake."""

import argparse
import json
import os
import shlex
import signal
import sys
import time
from datetime import date
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "fixtures")]

import sales  # noqa: E402
from chain import ROOT, SOURCES, Chain, Failed, tail  # noqa: E402

ENGLISH = os.environ.get("RIBERA_LANG") == "en"
# What is made imperfect on purpose: three weeks that were never extracted, and a batch that is
# damaged on the way.
GAP = (date(2017, 5, 8), date(2017, 5, 28))
DAMAGED = (date(2017, 10, 1), date(2017, 10, 31))
QUERY = """SELECT store_id AS tienda, count(*) AS lineas, sum(total) AS ventas,
       round(sum(total) / count(DISTINCT ticket_id), 2) AS ticket_medio
FROM ventas GROUP BY store_id ORDER BY ventas DESC LIMIT 5"""

TOTALS = """SELECT count(DISTINCT store_id) AS stores, count(*) AS lines, sum(cantidad) AS quantity,
       sum(total) AS sales_value FROM ventas"""


def main() -> int:
    arguments = parse()
    out = sys.stderr if arguments.json else sys.stdout
    table, origin = sales.load(None if arguments.all else arguments.stores, arguments.seed)
    chain = Chain(arguments.folder, table)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        result = Demo(chain, origin, arguments, out).run()
        if arguments.json:
            print(json.dumps(result), flush=True)
        if not arguments.once:
            stay(chain, out)
        return 0
    except Failed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        chain.stop()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run demo", description=say(
        "Un año de ventas de una cadena, de las tiendas al lago.",
        "A year of a chain's sales, from the stores into the lake."))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--stores", type=positive, default=20, metavar="N", help=say("las N tiendas con más ventas (20)", "the N busiest stores (20)"))
    size.add_argument("--all", action="store_true", help=say("las 457 tiendas", "all 457 stores"))
    parser.add_argument("--perfect", action="store_true", help=say("sin las imperfecciones a propósito", "without the imperfections made on purpose"))
    parser.add_argument("--source", choices=[*SOURCES, "all"], default="sqlite", help=say("base de datos de las tiendas; all: las cinco por turno", "the stores' database; all: the five in turn"))
    parser.add_argument("--once", action="store_true", help=say("termina sola", "ends by itself"))
    parser.add_argument("--json", action="store_true", help=say("última línea de la salida: un objeto JSON", "last line of the output: one JSON object"))
    parser.add_argument("--folder", type=Path, default=ROOT / ".ribera" / "demo", help=say("dónde trabaja", "where it works"))
    parser.add_argument("--agents", type=positive, default=4, metavar="N", help=say("agentes a la vez (4)", "agents at once (4)"))
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="ADDRESS", help=say("dirección de la página", "address of the page"))
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(say(f"un número desde 1, no {text!r}", f"a number from 1, not {text!r}"))
    return int(text)


class Demo:
    def __init__(self, chain: Chain, origin: str, arguments: argparse.Namespace, out):
        self.chain, self.origin, self.arguments, self.out = chain, origin, arguments, out
        names = chain.busiest_first
        # One of the smaller stores and one in the middle.
        imperfect = not arguments.perfect and len(names) >= 2
        self.gappy, self.damaged = (names[-1], names[(len(names) - 1) // 2]) if imperfect else (None, None)
        self.begin = time.monotonic()

    def run(self) -> dict:
        chain = self.chain
        self.step(say("bases de datos de las tiendas", "the stores' databases"))
        chain.clear()
        chain.make_tills(self.arguments.source)
        chain.declare(held=tuple(filter(None, (self.gappy, self.damaged))))
        if self.damaged:
            self.damage_a_batch()
        self.step(say("el lago: ribera up", "the lake: ribera up"))
        chain.start_host(listen=self.arguments.listen)
        self.extract()
        chain.wait_until_settled(600)
        seconds = time.monotonic() - self.begin
        result = self.measure(seconds)
        self.show(result)
        return result

    def damage_a_batch(self) -> None:
        """The agent sends October; on the way to the centre some of its bytes change."""
        chain = self.chain
        chain.backfill(self.damaged, *DAMAGED, wait=0)
        [file] = (chain.store / "landing" / "ventas" / f"store_id={self.damaged}").rglob("*.parquet")
        with file.open("r+b") as content:
            content.seek(file.stat().st_size // 2)
            content.write(b"\xde\xad\xbe\xef" * 16)

    def extract(self) -> None:
        chain, names = self.chain, self.chain.busiest_first
        self.rows, self.stores = 0, 0
        self.step(say(f"{len(names)} agentes, {self.arguments.agents} a la vez", f"{len(names)} agents, {self.arguments.agents} at once"))
        plain = [name for name in names if name not in (self.gappy, self.damaged)]
        chain.backfill_all(plain, self.arguments.agents, self.progress)
        for name, (first, last) in ((self.gappy, GAP), (self.damaged, DAMAGED)):
            if name:
                one_day = date.resolution
                # 6: the agent hears that the lake refused the damaged batch.
                chain.backfill(name, chain.first, first - one_day, ok=(0, 6))
                self.progress(name, chain.backfill(name, last + one_day, chain.last, ok=(0, 6)))

    def progress(self, name: str, _report: dict) -> None:
        self.stores += 1
        total = len(self.chain.busiest_first)
        if sys.stderr.isatty():
            print(f"\r  {self.stores}/{total}  {name:<20}", end="" if self.stores < total else "\n", file=sys.stderr, flush=True)
        elif self.stores % max(1, total // 10) == 0:
            print(f"  {self.stores}/{total}  {time.monotonic() - self.begin:.0f} s", file=sys.stderr, flush=True)

    def measure(self, seconds: float) -> dict:
        chain = self.chain
        [row] = chain.ribera_json("sql", TOTALS)["rows"]
        days = chain.coverage()["totals"]["days"]
        return {
            "stores": int(row["stores"]),
            "batches": chain.settled(),
            "rows": int(row["lines"]),
            "quantity": plain_decimal(row["quantity"]),
            "sales_value": plain_decimal(row["sales_value"]),
            "days_complete": days["complete"],
            "days_partial": days["partial"],
            "days_missing": days["missing"],
            "lake": str(chain.store),
            "seconds": round(seconds, 1),
            "data": self.origin,
        }

    def show(self, result: dict) -> None:
        chain = self.chain
        period = ["--from", str(chain.first), "--to", str(chain.last)]
        self.step(say("cobertura", "coverage"))
        self.print(shortened(chain.ribera("coverage", "--summary", *period)))
        self.step(say("una consulta y su respuesta", "a query and its answer"))
        self.print(f"./run ribera --lake {self.short(chain.store)} sql {shlex.quote(QUERY)}\n")
        self.print(chain.ribera("sql", QUERY))
        if self.gappy:
            self.step(say("lo que falta se recupera con estas órdenes", "these commands recover what is missing"))
            if chain.password:
                self.print(f"  . {self.short(chain.login)}")
            for command in recovery_commands(chain):
                self.print("  " + " ".join(self.short(word) for word in command))
        self.step(say("en resumen", "in short"))
        self.print(say(
            f"{number(result['rows'])} líneas de {result['stores']} tiendas en {result['seconds']:.0f} s; datos: {'reales' if self.origin == 'real' else 'generados'}",
            f"{number(result['rows'])} lines of {result['stores']} stores in {result['seconds']:.0f} s; data: {self.origin}"))
        self.print(say(f"lago: {result['lake']}", f"lake: {result['lake']}"))
        self.print(say(f"página: {chain.page}", f"page: {chain.page}"))

    def short(self, word) -> str:
        word = str(word)
        return word.removeprefix(f"{ROOT}/") if word.startswith(f"{ROOT}/") else word

    def step(self, text: str) -> None:
        bold = ("\033[1m", "\033[0m") if self.out.isatty() else ("", "")
        print(f"{bold[0]}== {text}{bold[1]}", file=self.out, flush=True)

    def print(self, text: str) -> None:
        print(text.rstrip("\n"), file=self.out, flush=True)


def recovery_commands(chain: Chain) -> list[list[str]]:
    """What `ribera recover` plans, each step as a command line for this chain's agents."""
    plan = chain.ribera_json("recover", "--dataset", "ventas", "--from", str(chain.first), "--to", str(chain.last), ok=(0, 1))
    commands = []
    for step in plan["steps"]:
        words = shlex.split(step["command"])[1:]
        config = ["--config", str(chain.config(step["store"]))]
        commands.append(["./run", "agent", *config, *words, "--wait-acks", "60"])
    return commands


def shortened(summary: str, green_max: int = 20) -> str:
    """Without the green stores beyond the first `green_max`: what is not well always shows."""
    kept, green = [], 0
    for line in summary.splitlines():
        is_green = line.lstrip().startswith("●")
        green += is_green
        if not is_green or green <= green_max:
            kept.append(line)
        elif green == green_max + 1:
            kept.append(" ...")
    return "\n".join(kept)


def number(value: int) -> str:
    return f"{value:,}" if ENGLISH else f"{value:,}".replace(",", ".")


def plain_decimal(text) -> str:
    text = str(text if text is not None else 0)
    return text.rstrip("0").rstrip(".") if "." in text else text


def stay(chain: Chain, out) -> None:
    print(say("Ctrl-C termina.", "Ctrl-C ends it."), file=out, flush=True)
    while chain.host.poll() is None:
        time.sleep(0.5)
    raise Failed(f"ribera up ended by itself:\n{tail(chain.folder / 'host.log')}")


def say(spanish: str, english: str) -> str:
    return english if ENGLISH else spanish


if __name__ == "__main__":
    sys.exit(main())
