"""A private PostgreSQL on a free port of 127.0.0.1, its data in a folder of the caller."""

import contextlib
import glob
import os
import shutil
import subprocess
import time

from .mariadb import free_port

USER, PASSWORD, DATABASE = "ribera", "ribera-bench", "pos"
# PostgreSQL refuses to run as root; nobody runs it then.
UNPRIVILEGED = 65534


class Server:
    def __init__(self, folder, port, process):
        self.folder, self.port, self.process = folder, port, process

    @property
    def uri(self):
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    def cpu_s(self):
        """CPU seconds that the server and its ended sessions have used so far: the load on the source."""
        used = 0
        for pid in [self.process.pid, *children(self.process.pid)]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                # Own, and for the first process those of sessions that have ended.
                used += sum(int(field) for field in fields[11:15])
        return used / os.sysconf("SC_CLK_TCK")

    def sql(self, statement, database=DATABASE):
        """Runs statements as the server's own administrator; the output as text."""
        done = subprocess.run(
            [program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t",
             "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", str(self.port), "-U", "postgres", database],
            input=statement, capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def server(folder, fill):
    """Starts a server on `folder`. When the folder is not complete yet it is made anew and
    `fill(server)` loads it; a load that was cut off is thrown away."""
    done_mark = os.path.join(folder, "complete")
    if not os.path.exists(done_mark):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        own(folder)
        install(folder)
        with running(folder) as fresh:
            fresh.sql(f"CREATE DATABASE {DATABASE}; CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'", "postgres")
            fresh.sql(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {USER}")
            fill(fresh)
        with open(done_mark, "w", encoding="ascii") as file:
            file.write("1\n")
    with running(folder) as ready:
        yield ready


def install(folder):
    subprocess.run(
        [*unprivileged(), program("initdb"), "--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync",
         "--encoding=UTF8", "--no-locale", "--pgdata", f"{folder}/data"],
        check=True, stdout=subprocess.DEVNULL, cwd="/",
    )


@contextlib.contextmanager
def running(folder):
    port = free_port()
    with open(os.path.join(folder, "server.log"), "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*unprivileged(), program("postgres"), "-D", f"{folder}/data", "-p", str(port), "-c", "listen_addresses=127.0.0.1",
             "-c", f"unix_socket_directories={folder}", "-c", "shared_buffers=1GB", "-c", "max_wal_size=4GB",
             "-c", "TimeZone=UTC"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
        )
    started = Server(folder, port, process)
    try:
        wait_ready(started)
        yield started
    finally:
        process.terminate()
        process.wait()


def wait_ready(started, patience_s=60):
    deadline = time.monotonic() + patience_s
    while True:
        try:
            started.sql("SELECT 1", database="postgres")
            return
        except RuntimeError:
            if started.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: see {started.folder}/server.log") from None
            time.sleep(0.2)


def program(name):
    """Of the newest server installed; Debian keeps them out of PATH."""
    versions = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
    return max(versions, key=lambda path: int(path.split("/")[4]), default=name)


def own(folder):
    if os.getuid() == 0:
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)


def unprivileged():
    """The words before a server's command that make it run as nobody, who may yet enter the caller's folders."""
    if os.getuid() != 0:
        return []
    user = str(UNPRIVILEGED)
    return ["setpriv", "--reuid", user, "--regid", user, "--clear-groups",
            "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"]


def children(pid):
    with contextlib.suppress(FileNotFoundError):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    return []
