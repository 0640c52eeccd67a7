"""PostgreSQL from the system's packages."""

import glob
import os
import re
import signal
import subprocess

from . import server
from .server import DATABASE, USER


class Postgres(server.Server):
    TITLE, KIND = "PostgreSQL", "postgres"
    # By SIGTERM it waits until every session has ended by itself.
    STOP_SIGNAL = signal.SIGINT
    OWNED_BY_NOBODY = True

    def __init__(self, folder, password, throw_away=False):
        super().__init__(folder, password, throw_away)
        self.log = server.LogTail(os.path.join(self.folder, "server.log"))

    @property
    def uri(self):
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def install(self):
        subprocess.run(
            [*server.unprivileged(), program("initdb"), "--username=postgres", "--auth-local=trust",
             "--auth-host=scram-sha-256", "--no-sync", "--encoding=UTF8", "--no-locale",
             "--pgdata", f"{self.folder}/data"],
            check=True, stdout=subprocess.DEVNULL, cwd="/",
        )

    def command(self):
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={self.run}", "shared_buffers=1GB",
                    "max_wal_size=4GB", "TimeZone=UTC", "log_min_duration_statement=50",
                    f"fsync={'off' if self.throw_away else 'on'}"]
        return [*server.unprivileged(), program("postgres"), "-D", f"{self.folder}/data", "-p", str(self.port),
                *(word for setting in settings for word in ("-c", setting))]

    def create(self):
        self.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{self.password}'", "postgres")
        self.create_database(DATABASE)

    def create_database(self, name):
        self.sql(f"CREATE DATABASE {name}", "postgres")
        self.sql(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {USER}", name)

    def ping(self):
        self.sql("SELECT 1", "postgres")

    def sql(self, statement, database=DATABASE):
        """Runs statements as the server's own administrator; the output as text."""
        return server.client(self.shell(database), statement)

    def shell(self, database=DATABASE):
        """The client that `sql` runs, as a command that reads statements until its input ends."""
        return [program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t",
                "-v", "ON_ERROR_STOP=1", "-h", self.run, "-p", str(self.port), "-U", "postgres", database]

    def longest_query_s(self):
        found = (re.search(r"duration: ([0-9.]+) ms", line) for line in self.log.lines())
        return max((float(one[1]) / 1000 for one in found if one), default=0.0)


def program(name):
    """Of the newest server installed; Debian keeps them out of PATH."""
    versions = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
    return max(versions, key=lambda path: int(path.split("/")[4]), default=name)
