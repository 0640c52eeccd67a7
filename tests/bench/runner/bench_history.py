"""`bench history`: 13 months of 17 stores, landing to lake, native and through WASM, merged by `maintain`; then the
total by store and month through `ribera sql`: over all rows, by the columns that files are laid out
by and by those that a till knows, and over the table of days, which opens no data file."""

import json
import os
import shutil
import statistics
import tempfile

from . import bench_ingest, measure, place

ROWS = int(os.environ.get("RIBERA_BENCH_HISTORY_ROWS", "82300000"))
STORES, MONTHS = 17, 13
NATIVE_S_MAX, WASM_S_MAX, QUERY_S_MAX = 120, 300, 1.0
# What is read, and the total by store and month of it: store, month, lines, amount.
QUERIES = {
    "over rows, by store_id and month":
        "SELECT store_id AS tienda, month AS mes, count(*) AS lineas, sum(total) AS total "
        "FROM ventas GROUP BY ALL ORDER BY ALL",
    "over rows, by ubicacion_id and date_trunc of fecha":
        "SELECT ubicacion_id AS tienda, strftime(date_trunc('month', fecha), '%Y-%m') AS mes, lineas, total FROM ("
        "SELECT ubicacion_id, date_trunc('month', fecha) AS fecha, count(*) AS lineas, sum(total) AS total "
        "FROM ventas GROUP BY ALL) ORDER BY ALL",
    "over days (ventas_days)":
        "SELECT store_id AS tienda, month AS mes, sum(rows) AS lineas, sum(total) AS total "
        "FROM ventas_days GROUP BY ALL ORDER BY ALL",
}
DISK_BYTES_NEEDED = 10 * 2**30


def run(report):
    bench, host = place.bench_program(), place.host_program()
    scratch = place.cache("scratch")
    if shutil.disk_usage(scratch).free < DISK_BYTES_NEEDED:
        raise RuntimeError(f"needs {DISK_BYTES_NEEDED >> 30} GB free in {scratch}")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        lake, landed = os.path.join(folder, "lake"), os.path.join(folder, "landed")
        made = measure.run(
            [bench, "generate", f"--folder={landed}", f"--stores={STORES}", f"--months={MONTHS}", f"--rows={ROWS}"]
        )
        print(f"  generated {made.last_json['batches']} batches, {made.last_json['bytes'] / 2**20:.0f} MB "
              f"in {made.wall_s:.0f} s", flush=True)
        native = ingest(host, landed, lake, [bench, "sweep", f"--folder={lake}"])
        judge(report, "native", native, NATIVE_S_MAX)
        shutil.rmtree(lake)
        wasm = ingest(host, landed, lake, [host, "--lake", lake, "--json", "sweep"])
        judge(report, "WASM", wasm, WASM_S_MAX)
        report.add("WASM beside native", wasm.wall_s, "s", peer="native", peer_value=native.wall_s)
        query(report, host, lake)
        report.add("lake on disk, with what merging replaced", folder_bytes(lake, "lake"), "bytes",
                   peer="bytes landed", peer_value=made.last_json["bytes"])


def ingest(host, landed, lake, command):
    """The sweep and what merges its files, as one run. Hard links instead of copies: landed files are only read."""
    shutil.copytree(landed, lake, copy_function=os.link)
    swept = measure.run(command, timeout_s=3600)
    bench_ingest.require_clean(lake)
    merged = measure.run([host, "--lake", lake, "--json", "maintain"], timeout_s=3600)
    print(f"  maintain: {merged.wall_s:.0f} s, {merged.cpu_s:.0f} CPU-s, {merged.rss_bytes / 2**20:.0f} MB resident",
          flush=True)
    return measure.Run(swept.wall_s + merged.wall_s, swept.cpu_s + merged.cpu_s,
                       max(swept.rss_bytes, merged.rss_bytes), merged.output)


def judge(report, name, one, seconds_max):
    print(f"  {name}: {one.wall_s:.0f} s, {one.cpu_s:.0f} CPU-s, {one.rss_bytes / 2**20:.0f} MB resident", flush=True)
    report.add(f"{name}: {ROWS} rows landing to lake, merged", one.wall_s, "s", f"<= {seconds_max}")
    report.add(f"{name}: CPU", one.cpu_s, "CPU-s")
    report.add(f"{name}: resident memory", one.rss_bytes / 2**20, "MB")


def query(report, host, lake):
    """Every way must give the same totals; the first run of each reads from disk what is not cached."""
    totals = {}
    for way, sql in QUERIES.items():
        runs = [measure.run([host, "--lake", lake, "--json", "sql", sql]) for _ in range(place.TIMES + 1)]
        rows = json.loads(runs[-1].output)["rows"]
        totals[way] = [(row["tienda"], row["mes"], int(row["lineas"]), row["total"]) for row in rows]
        what = f"total by store and month {way}"
        warm = runs[1:]
        report.add(f"{what}, first run", runs[0].wall_s, "s", f"< {QUERY_S_MAX}")
        report.add(f"{what}, median of later runs", statistics.median(one.wall_s for one in warm), "s", f"< {QUERY_S_MAX}")
        report.add(f"{what}: CPU", statistics.median(one.cpu_s for one in warm), "CPU-s")
    first = next(iter(totals.values()))
    if any(total != first for total in totals.values()):
        raise RuntimeError("totals over rows and over days differ")
    report.add("groups in each answer", len(first), "rows", f"= {STORES * MONTHS}")
    report.add("lines in the answer", sum(row[2] for row in first), "rows", f"= {ROWS}")


def folder_bytes(lake, name):
    return sum(
        os.path.getsize(os.path.join(at, file)) for at, _, files in os.walk(os.path.join(lake, name)) for file in files
    )
