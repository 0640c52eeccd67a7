"""MariaDB from the system's packages."""

import os
import pwd
import shutil
import subprocess

from . import server
from .server import DATABASE, USER


class MariaDb(server.Server):
    TITLE, KIND = "MariaDB", "mariadb"

    def __init__(self, folder, password, throw_away=False):
        super().__init__(folder, password, throw_away)
        self.slow = server.LogTail(os.path.join(self.folder, "slow.log"))

    @property
    def uri(self):
        return f"mysql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def socket(self):
        return os.path.join(self.run, "s.sock")

    def install(self):
        # A server that starts removes the temporary tables of every other one in the same folder.
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data", f"--user={os_user()}",
             f"--tmpdir={self.folder}", "--auth-root-authentication-method=socket", "--skip-test-db"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def command(self):
        syncs = ["--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
        return [
            shutil.which("mariadbd") or "/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self.folder}/data",
            f"--socket={self.socket}", f"--port={self.port}", f"--pid-file={self.run}/pid", "--bind-address=127.0.0.1",
            f"--tmpdir={self.run}", f"--user={os_user()}", "--skip-name-resolve", "--skip-log-bin", "--local-infile=1",
            "--innodb-buffer-pool-size=2G", "--max-connections=200", "--character-set-server=utf8mb4",
            "--default-time-zone=+00:00",
            "--slow-query-log=1", "--long-query-time=0.05", f"--slow-query-log-file={self.slow.path}",
            *(syncs if self.throw_away else []),
        ]

    def create(self):
        self.sql(f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{self.password}';", "mysql")
        self.create_database(DATABASE)

    def create_database(self, name):
        self.sql(f"CREATE DATABASE {name}; GRANT SELECT ON {name}.* TO '{USER}'@'127.0.0.1';", "mysql")

    def ping(self):
        self.sql("SELECT 1;", "mysql")

    def sql(self, statement, database=DATABASE):
        """Runs statements as the server's own administrator; the output as text."""
        return server.client(self.shell(database), statement)

    def shell(self, database=DATABASE):
        """The client that `sql` runs, as a command that reads statements until its input ends."""
        return ["mariadb", "--no-defaults", f"--socket={self.socket}", "--batch", "--unbuffered", "-N", "--local-infile=1",
                f"--user={os_user()}", database]

    def longest_query_s(self):
        times = [line.split("Query_time:")[1].split()[0] for line in self.slow.lines() if "Query_time:" in line]
        return max(map(float, times), default=0.0)


def os_user():
    return pwd.getpwuid(os.getuid()).pw_name
