"""A till that sells while the agent reads: how long its commits take, through the server's own client."""

import contextlib
import os
import sqlite3
import subprocess
import threading
import time

from .sources import COLUMNS

LINES = 3
INTERVAL_S = 0.025
# A till's program gives up after this.
PATIENCE_S = 5.0
MARK = "vendido"


class Till:
    """Sells a ticket forty times a second, on a day that nobody backfills, until `stop`."""

    def __init__(self, connection, day):
        self.connection, self.day = connection, day
        self.took_s, self.refused, self.ended = [], 0, threading.Event()
        self.failure = None
        self.first = int(time.time() * 10) % 1_000_000_000
        self.thread = threading.Thread(target=self.sell, daemon=True)

    def sell(self):
        try:
            while not self.ended.is_set():
                began = time.monotonic()
                if self.connection.commit(self.ticket(len(self.took_s) + self.refused)):
                    self.took_s.append(time.monotonic() - began)
                else:
                    self.refused += 1
                self.ended.wait(max(0.0, INTERVAL_S - (time.monotonic() - began)))
        except (OSError, RuntimeError) as error:
            self.failure = error
        finally:
            # Here, for a connection of SQLite stays in its thread.
            self.connection.close()

    def ticket(self, number):
        # Other than those of the till before.
        return [f"('T{self.first:09}{number:09}'", self.day]

    def stop(self):
        self.ended.set()
        self.thread.join(60)
        if self.failure:
            raise self.failure

    @property
    def p99_ms(self):
        return sorted(self.took_s)[int(len(self.took_s) * 0.99)] * 1000

    @property
    def longest_ms(self):
        return max(self.took_s) * 1000


@contextlib.contextmanager
def selling(connection, day):
    till = Till(connection, day)
    till.thread.start()
    try:
        yield till
    finally:
        till.stop()


def insert(ticket, linea, amounts):
    start, day = ticket
    return (f"INSERT INTO ventas_detalle ({COLUMNS}) VALUES {start}, {linea}, '{day}', '017', '{day} 12:00:00', "
            f"'8400000000001', NULL, {amounts})")


class Client:
    """The server's own client, to which statements are written and which answers each."""

    def __init__(self, running, begin, mark):
        self.begin, self.mark, self.number = begin, mark, 0
        env = running.environment() if hasattr(running, "environment") else {}
        self.process = subprocess.Popen(
            running.shell(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **env},
        )

    def commit(self, ticket):
        self.number += 1
        word = f"{MARK}-{self.number}"
        lines = ";\n".join(insert(ticket, linea, "1, 2.5, NULL, 2.5") for linea in range(1, LINES + 1))
        self.process.stdin.write(f"{self.begin}{lines};\nCOMMIT;\n{self.mark.format(word=word)}\n")
        self.process.stdin.flush()
        # What the client says before is an error, after which it ends.
        told = []
        for line in self.process.stdout:
            if line.strip() == word:
                return True
            told.append(line)
        raise RuntimeError(f"the till's client ended: {''.join(told)[-2000:]}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


class File:
    """A SQLite file, as a till's program opens it."""

    def __init__(self, path):
        self.path, self.connection = path, None

    def commit(self, ticket):
        if self.connection is None:
            self.connection = sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None)
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            for linea in range(1, LINES + 1):
                self.connection.execute(insert(ticket, linea, "1000, 25000, NULL, 250"))
            self.connection.execute("COMMIT")
        except sqlite3.OperationalError:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            return False
        return True

    def close(self):
        if self.connection:
            self.connection.close()
