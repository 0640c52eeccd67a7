"""SQLite, for the agent's benchmark: a file, and no server beside the reader."""

import contextlib
import os
import shutil
import sqlite3


class SqliteFile:
    """What the servers do, as far as a file can."""

    TITLE = "SQLite"

    def __init__(self, folder, _password):
        self.folder, self.path = folder, os.path.join(folder, "pos.db")

    @property
    def uri(self):
        return f"sqlite://{self.path}"

    @contextlib.contextmanager
    def filled(self, fill):
        done_mark = os.path.join(self.folder, "complete")
        if not os.path.exists(done_mark):
            shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(self.folder)
            fill(self)
            with open(done_mark, "w", encoding="ascii") as file:
                file.write("1\n")
        yield self

    def settings(self):
        return f'kind = "sqlite"\npath = "{self.path}"'

    def cpu_s(self):
        """What reads the file is measured with the reader."""
        return 0

    def longest_query_s(self):
        return None

    def sql(self, statement):
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute(statement).fetchall()
            connection.commit()
        return "\n".join("\t".join(map(str, row)) for row in rows)
