"""Runs one command and measures its whole process tree.

Run as a program: `python3 tree.py REPORT.json TIMEOUT_S -- COMMAND...`. It makes itself the
reaper of every orphan below it, so that CPU seconds of grandchildren count even when their
parents did not wait for them. The command's output passes through.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main():
    report, timeout_s, command = sys.argv[1], float(sys.argv[2]), sys.argv[4:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = time.monotonic()
    child = subprocess.Popen(command, start_new_session=True)
    peak = PeakMemory()
    peak.start()
    watchdog = threading.Timer(timeout_s, lambda: os.killpg(child.pid, signal.SIGKILL))
    watchdog.daemon = True
    watchdog.start()
    code = reap_all(child.pid)
    wall_s = time.monotonic() - started
    peak.stop()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(report, "w", encoding="utf-8") as file:
        json.dump(
            {
                "code": code,
                "wall_s": wall_s,
                "cpu_s": used.ru_utime + used.ru_stime,
                "user_s": used.ru_utime,
                "system_s": used.ru_stime,
                # The largest single process exactly, or the polled sum of a tree of several.
                "rss_bytes": max(used.ru_maxrss * 1024, peak.bytes),
            },
            file,
        )


def reap_all(first):
    """Waits until no process is left below this one; the exit code of `first`."""
    code = None
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return code
        if pid == first:
            code = os.waitstatus_to_exitcode(status)


class PeakMemory(threading.Thread):
    """The largest sum of resident memory over all descendants, polled."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes = 0
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.wait(POLL_S):
            self.bytes = max(self.bytes, sum(resident_bytes(pid) for pid in descendants(os.getpid())))

    def stop(self):
        self.stopping.set()
        self.join()


def descendants(root):
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        for child in children(pid):
            found.append(child)
            queue.append(child)
    return found


def children(pid):
    pids = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                pids.extend(int(word) for word in file.read().split())
    except OSError:
        pass  # It ended between two looks.
    return pids


def resident_bytes(pid):
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
