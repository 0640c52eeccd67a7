"""Firebird 3 from the system's packages."""

import glob
import os
import shutil
import socket

from . import server
from .server import DATABASE, USER

ADMINISTRATOR = ["-user", "SYSDBA", "-password", "masterkey"]


class Firebird(server.Server):
    TITLE, KIND = "Firebird", "firebird"
    # No such key: the server's WireCrypt decides.
    SETTINGS = ""

    def environment(self):
        return {"FIREBIRD": self.folder, "FIREBIRD_LOCK": f"{self.folder}/lock", "FIREBIRD_TMP": f"{self.folder}/tmp"}

    def file(self, database=DATABASE):
        return os.path.join(self.folder, f"{database}.fdb")

    def install(self):
        for name in ("lock", "tmp", "intl", "external"):
            os.mkdir(os.path.join(self.folder, name))
        package = glob.glob("/usr/lib/*/firebird/3.0")[0]
        # Copies: the server does not find its character sets behind a link.
        for name in ("plugins.conf", "intl/fbintl.conf", "intl/libfbintl.so"):
            shutil.copy(os.path.join(package, name), os.path.join(self.folder, name))
        self.configure()
        security = f"{self.folder}/security3.fdb"
        self.isql(f"CREATE DATABASE '{security}';")
        self.isql(
            "CREATE USER SYSDBA PASSWORD 'masterkey' USING PLUGIN Srp;\n"
            f"CREATE USER {USER} PASSWORD '{self.password}' USING PLUGIN Srp;\n", security,
        )

    def configure(self):
        settings = [
            f"RemoteServicePort = {self.port or 0}", "RemoteBindAddress = 127.0.0.1", "ServerMode = Super",
            f"SecurityDatabase = {self.folder}/security3.fdb", f"DatabaseAccess = Restrict {self.folder}",
            f"ExternalFileAccess = Restrict {self.folder}/external", "AuthServer = Srp", "UserManager = Srp",
            # As for the others: rows in the clear, on this machine.
            "WireCrypt = Disabled", "DefaultDbCachePages = 16384",
        ]
        with open(os.path.join(self.folder, "firebird.conf"), "w", encoding="utf-8") as file:
            file.write("\n".join(settings))

    def command(self):
        self.configure()
        return [program(), "-e", self.folder]

    def create(self):
        self.create_database(DATABASE)

    def create_database(self, name):
        self.isql(f"CREATE DATABASE '127.0.0.1/{self.port}:{self.file(name)}' USER SYSDBA PASSWORD 'masterkey' "
                  "PAGE_SIZE 16384 DEFAULT CHARACTER SET UTF8;")

    def ping(self):
        socket.create_connection(("127.0.0.1", self.port), 1).close()

    def sql(self, statement, database=DATABASE):
        """Runs statements as the server's own administrator; the output as text."""
        return self.isql(f"SET HEADING OFF;\n{statement}\nCOMMIT;\n", self.place(database), *ADMINISTRATOR)

    def shell(self, database=DATABASE):
        """The client that `sql` runs, as a command that reads statements until its input ends, and answers each at once."""
        return ["stdbuf", "-oL", *self.isql_command(self.place(database), *ADMINISTRATOR)]

    def place(self, database):
        return f"127.0.0.1/{self.port}:{self.file(database)}"

    def isql(self, statements, place=None, *login):
        return server.client(self.isql_command(place, *login), statements, self.environment())

    def isql_command(self, place, *login):
        return ["isql-fb", "-quiet", "-bail", "-charset", "UTF8", *login, *([place] if place else [])]

    def settings(self, database=DATABASE):
        return super().settings(self.file(database))

    def load(self, table, columns, rows, database=DATABASE):
        """Loads `rows` of texts (None is NULL) through an external file of fixed widths: `columns` is name to
        width. A hundred times quicker than INSERT."""
        path = os.path.join(self.folder, "external", f"{table}.ext")
        widths = list(columns.values())
        with open(path, "w", encoding="ascii", newline="") as out:
            for row in rows:
                out.write("".join(("" if value is None else value).ljust(width) for value, width in zip(row, widths)))
                out.write("\n")
        fields = ", ".join(f"{name} CHAR({width}) CHARACTER SET ASCII" for name, width in columns.items())
        texts = ", ".join(f"NULLIF(TRIM({name}), '')" for name in columns)
        try:
            self.sql(
                f"CREATE TABLE externa EXTERNAL FILE '{path}' ({fields}, fin CHAR(1) CHARACTER SET ASCII);\nCOMMIT;\n"
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {texts} FROM externa;\nCOMMIT;\n"
                "DROP TABLE externa;", database,
            )
        finally:
            os.remove(path)


def program():
    """Unpacked by infra/dev/setup.sh, or installed."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    tools = os.environ.get("RIBERA_TOOLS") or os.path.join(cache, "ribera")
    unpacked = os.path.join(tools, "firebird-3.0/usr/sbin/firebird")
    return unpacked if os.path.exists(unpacked) else "/usr/sbin/firebird"
