"""The page in a real browser, from each kind of host: components and native. Nothing leaves this machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = Path(os.environ.get("BIN") or ROOT / "target" / "debug")
PLAYWRIGHT = os.environ["PLAYWRIGHT_DIR"]
STORE = "centro"


def main() -> int:
    chromium = shutil.which("chromium")
    with tempfile.TemporaryDirectory(prefix="ribera-browser-") as folder:
        lake = Path(folder) / "store"
        environment = {**os.environ, "RIBERA_LAKE": str(lake)}
        store = ["store", "add", STORE, "--name", "Centro", "--zone", "America/Bogota", "--opened", "2026-01-01"]
        subprocess.run([BIN / "ribera", *store], env=environment, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            [BIN / "ribera", "dataset", "publish", ROOT / "storage" / "datasets" / "ventas.toml"],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )
        for words in ([], ["--native"]):
            with open(Path(folder) / "host.log", "w", encoding="utf-8") as log:
                up = [BIN / "ribera", "up", "--json", "--listen", "127.0.0.1:0", *words]
                host = subprocess.Popen(up, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
                try:
                    page = json.loads(host.stdout.readline())["page"]
                    urllib.request.urlopen(urllib.request.Request(f"{page}coverage", b"", method="POST"), timeout=60).read()
                    script = ["node", HERE / "page.mjs", PLAYWRIGHT, chromium, page, STORE]
                    done = subprocess.run(script, timeout=60, check=False)
                finally:
                    host.terminate()
                    host.wait(60)
            kind = "native" if words else "components"
            if done.returncode != 0:
                print(f"browser: the page of the host ({kind}) failed", file=sys.stderr)
                return 1
            print(f"browser: the page of the host ({kind}) ... ok", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
