"""The agent as a service of Windows, under Wine: installed, reads a till, uploads, stops in order.

service.py WINE AGENT.EXE: Wine's own service manager plays the system's. Rights and the event log are empty shells there.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
folder = "agent"
object_store = { folder = "objects" }
hash_salt = "${SAL}"
[log]
file = "agent.log"
level = "info"
[[store]]
id = "centro"
time_zone = "America/Bogota"
adapter = "caja"
source = { kind = "sqlite", path = "caja.db" }
[adapter.caja.ventas]
from = "lineas"
date = "fecha"
[adapter.caja.ventas.columns]
ticket_id = "ticket"
linea = "linea"
vendido_en = "fecha || ' 12:00:00'"
producto_id = "producto"
cantidad = "cantidad"
total = { sql = "centavos", scale = 2 }
"""
ROWS = 7
PATIENCE_S = 120


def main() -> None:
    wine, agent = sys.argv[1:3]
    with tempfile.TemporaryDirectory(prefix="ribera-service-") as name:
        folder = Path(name)
        make_till(folder / "caja.db")
        (folder / "agent.toml").write_text(CONFIG)
        (folder / "agent.env").write_text("SAL=una sal de prueba bastante larga\n")

        def run(*words: str) -> subprocess.CompletedProcess:
            return subprocess.run([wine, *words], capture_output=True, text=True, timeout=PATIENCE_S, cwd=folder)

        done = run(agent, "--config", "agent.toml", "install", "--print")
        check("sc create ribera-agent" in done.stdout and "icacls" in done.stdout, f"the commands are shown, got {done}")
        # A run that failed may have left one.
        run("sc", "delete", "ribera-agent")
        done = run(agent, "--config", "agent.toml", "install")
        try:
            check(done.returncode == 0, f"the service is installed and started, got {done}")
            manifests = wait_for(lambda: list(folder.glob("objects/inbox/centro/ventas/*.json")), "a manifest is uploaded")
            rows = sum(json.loads(one.read_text())["file"]["rows"] for one in manifests)
            check(rows == ROWS, f"{ROWS} rows are sent, got {rows}")
            check(list(folder.glob("objects/agents/centro/heartbeat.json")) != [], "there is a heartbeat")
            check(run(agent, "--config", "agent.toml", "install").returncode == 0, "the same again is nothing new")
            check(run(agent, "--config", "agent.toml", "once").returncode == 7, "the service holds the agent's folder")
        finally:
            stopped = run("sc", "stop", "ribera-agent")
        log = folder / "agent" / "agent.log"
        wait_for(lambda: log.exists() and "ends, as it was told to" in log.read_text(), f"the service ends in order, got {stopped}")
        wait_for(lambda: run(agent, "--config", "agent.toml", "spool").returncode == 0, "the folder is free again")
        check(run("sc", "delete", "ribera-agent").returncode == 0, "the service is deleted")
    print("service: ok")


def make_till(path: Path) -> None:
    till = sqlite3.connect(path)
    today = time.strftime("%Y-%m-%d")
    with till:
        till.execute("CREATE TABLE lineas (ticket INTEGER, linea INTEGER, fecha TEXT, producto TEXT, cantidad INTEGER, centavos INTEGER)")
        till.executemany("INSERT INTO lineas VALUES (?, 1, ?, 'p', 1, 100)", [(ticket, today) for ticket in range(ROWS)])
    till.close()


def wait_for(found, what: str):
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        if result := found():
            return result
        time.sleep(0.5)
    raise AssertionError(f"{what} within {PATIENCE_S} s")


def check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


if __name__ == "__main__":
    main()
