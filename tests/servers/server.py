"""A private database server on a free port of 127.0.0.1, its data in a folder of the caller: what
starting, filling and ending have in common. A subclass knows one product."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

USER, DATABASE = "ribera", "pos"
# Some servers refuse to run as root; nobody runs them then.
UNPRIVILEGED = 65534


class Server:
    """A subclass gives `KIND` (as the agent's configuration says it), `TITLE`, `install`, `command`,
    `create`, `ping`, `sql` and `settings`. The user `USER` may only read."""

    # Whether the server's own folder must belong to a user that is not root.
    OWNED_BY_NOBODY = False
    PATIENCE_S = 60
    # Asks the server to end its sessions and stop.
    STOP_SIGNAL = signal.SIGTERM

    def __init__(self, folder, password, throw_away=False):
        """`throw_away`: nothing in the folder has to survive a power cut."""
        self.folder, self.password, self.throw_away = str(folder), password, throw_away
        self.port = self.process = self.run = None

    @contextlib.contextmanager
    def filled(self, fill):
        """Runs on its folder. When the folder is not complete yet it is made again and `fill(server)` loads
        it; a load that was cut off is thrown away."""
        done_mark = os.path.join(self.folder, "complete")
        if not os.path.exists(done_mark):
            self.make_folder()
            self.install()
            with self.running():
                self.create()
                fill(self)
            with open(done_mark, "w", encoding="ascii") as file:
                file.write("1\n")
        with self.running():
            yield self

    def make_folder(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        if self.OWNED_BY_NOBODY and os.getuid() == 0:
            os.chown(self.folder, UNPRIVILEGED, UNPRIVILEGED)

    @contextlib.contextmanager
    def running(self):
        self.port = free_port()
        # A socket's path has to be short.
        self.run = tempfile.mkdtemp(prefix="ribera-")
        try:
            if self.OWNED_BY_NOBODY and os.getuid() == 0:
                os.chown(self.run, UNPRIVILEGED, UNPRIVILEGED)
            with open(os.path.join(self.folder, "server.log"), "a", encoding="utf-8") as log:
                self.process = subprocess.Popen(
                    self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
                    env={**os.environ, **self.environment()},
                )
            try:
                self.wait_ready()
                yield self
            finally:
                self.stop()
        finally:
            shutil.rmtree(self.run, ignore_errors=True)

    def environment(self):
        return {}

    def stop(self):
        self.process.send_signal(self.STOP_SIGNAL)
        try:
            self.process.wait(self.PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_ready(self):
        deadline = time.monotonic() + self.PATIENCE_S
        while True:
            try:
                self.ping()
                return
            except (RuntimeError, OSError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise OSError(f"{self.TITLE} did not start: see {self.folder}/server.log") from None
                time.sleep(0.1)

    def cpu_s(self):
        """CPU seconds that the server and its ended sessions have used so far: the load on the source."""
        used = 0
        for pid in [self.process.pid, *children(self.process.pid)]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                # Own, and those of sessions that have ended.
                used += sum(int(field) for field in fields[11:15])
        return used / os.sysconf("SC_CLK_TCK")

    def longest_query_s(self):
        """The longest query since the last call, as the server's own log tells; None where it keeps none."""
        return None

    def settings(self, database=DATABASE):
        """The keys of `[store.source]` in the agent's configuration. The password is in POS_PASSWORD."""
        return (
            f'kind = "{self.KIND}"\nhost = "127.0.0.1"\nport = {self.port}\ndatabase = "{database}"\n'
            f'user = "{USER}"\npassword = "${{POS_PASSWORD}}"\n{self.SETTINGS}'
        )

    SETTINGS = 'tls = "off"\n'


def client(command, statement, env=None):
    """Runs a product's own client on `statement`; what it prints."""
    done = subprocess.run(
        command, input=statement, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    if done.returncode != 0 or "SQLSTATE" in done.stderr:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[:2000]}")
    return done.stdout


def unprivileged():
    """The words before a server's command that make it run as nobody, who may yet enter the caller's folders."""
    if os.getuid() != 0:
        return []
    user = str(UNPRIVILEGED)
    return ["setpriv", "--reuid", user, "--regid", user, "--clear-groups",
            "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(pid):
    with contextlib.suppress(FileNotFoundError):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    return []


class LogTail:
    """Lines that a log got since the last look, or since there was one to look at."""

    def __init__(self, path):
        self.path, self.at = path, os.path.getsize(path) if os.path.exists(path) else 0

    def lines(self):
        with contextlib.suppress(FileNotFoundError), open(self.path, encoding="utf-8", errors="replace") as file:
            file.seek(self.at)
            found = file.read()
            self.at = file.tell()
            return found.splitlines()
        return []
