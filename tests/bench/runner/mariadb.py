"""A private MariaDB on a free port of 127.0.0.1, its data in a folder of the caller."""

import contextlib
import os
import shutil
import socket
import subprocess
import time

USER, PASSWORD, DATABASE = "ribera", "ribera-bench", "pos"


class Server:
    def __init__(self, folder, port, process):
        self.folder, self.port, self.process = folder, port, process

    @property
    def uri(self):
        return f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    def cpu_s(self):
        """CPU seconds the server has used so far: the load on the source."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def sql(self, statement, database=DATABASE):
        """Runs statements as the server's own administrator; the output as text."""
        done = subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={self.folder}/s.sock", "--batch", "-N", "--local-infile=1",
             f"--user={os_user()}", database],
            input=statement, capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"mariadb: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def server(folder, fill):
    """Starts a server on `folder`. When the folder is not complete yet it is made anew and
    `fill(server)` loads it; a load that was cut off is thrown away."""
    done_mark = os.path.join(folder, "complete")
    if not os.path.exists(done_mark):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        install(folder)
        with running(folder, loading=True) as fresh:
            fresh.sql(
                f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4;"
                f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';"
                f"GRANT SELECT ON {DATABASE}.* TO '{USER}'@'127.0.0.1';",
                database="mysql",
            )
            fill(fresh)
        with open(done_mark, "w", encoding="ascii") as file:
            file.write("1\n")
    with running(folder, loading=False) as ready:
        yield ready


def install(folder):
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", f"--user={os_user()}",
         "--auth-root-authentication-method=socket", "--skip-test-db"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def running(folder, loading):
    port = free_port()
    log = open(os.path.join(folder, "server.log"), "a", encoding="utf-8")
    process = subprocess.Popen(
        ["mariadbd", "--no-defaults", f"--datadir={folder}/data", f"--socket={folder}/s.sock", f"--port={port}",
         "--bind-address=127.0.0.1", f"--user={os_user()}", "--innodb-buffer-pool-size=2G", "--skip-log-bin",
         "--innodb-log-file-size=512M", "--local-infile=1", "--default-time-zone=+00:00",
         f"--innodb-flush-log-at-trx-commit={0 if loading else 1}"],
        stdout=log, stderr=log, stdin=subprocess.DEVNULL,
    )
    started = Server(folder, port, process)
    try:
        wait_ready(started)
        yield started
    finally:
        process.terminate()
        process.wait()
        log.close()


def wait_ready(started, patience_s=60):
    deadline = time.monotonic() + patience_s
    while True:
        try:
            started.sql("SELECT 1;", database="mysql")
            return
        except RuntimeError:
            if started.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB did not start: see {started.folder}/server.log") from None
            time.sleep(0.2)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def os_user():
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
