"""SQL Server's protocol, as pysqlbridge speaks it over CSV files: SQL Server itself is not to be had."""

import contextlib
import json
import os
import socket
import subprocess
import sys

from . import server
from .server import USER

DATABASE = "pySQLbridge"


class SqlBridge(server.Server):
    TITLE, KIND = "pysqlbridge", "sqlserver"
    # The certificate is its own.
    SETTINGS = 'tls = "require"\n'

    def install(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-keyout", self.file("server.key"), "-out", self.file("server.pem")],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def create(self):
        """What it serves is settled when it starts."""

    def file(self, name):
        return os.path.join(self.folder, name)

    @contextlib.contextmanager
    def serving(self, tables):
        """Runs on the CSV files of `tables`, a name to a function that writes the file of a path."""
        self.make_folder()
        self.install()
        for name, write in tables.items():
            write(self.file(f"{name}.csv"))
        config = {
            "logins": [{"user": USER, "password": "${env:BRIDGE_PASSWORD}"}],
            "tables": [{"name": name, "csv": f"{name}.csv"} for name in tables],
        }
        with open(self.file("tables.json"), "w", encoding="utf-8") as out:
            json.dump(config, out)
        with self.running():
            yield self

    def command(self):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sqlbridge.py")
        files = (self.file(name) for name in ("tables.json", "server.pem", "server.key"))
        return [sys.executable, script, *files, str(self.port)]

    def environment(self):
        return {"BRIDGE_PASSWORD": self.password}

    def ping(self):
        socket.create_connection(("127.0.0.1", self.port), 1).close()

    def sql(self, statement, database=DATABASE):
        """Asks with FreeTDS; rows as lines of text."""
        import pymssql

        with contextlib.closing(pymssql.connect(
            server="127.0.0.1", port=str(self.port), user=USER, password=self.password, database=database,
            encryption="require",
        )) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return "\n".join("\t".join(map(str, row)) for row in cursor.fetchall())

    def settings(self, database=DATABASE):
        return super().settings(database)
