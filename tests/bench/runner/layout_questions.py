"""Questions of `bench layout`: every engine on the lake and on the ideal copy in turn, in one process; `ribera sql`
beside a process of DuckDB's. All answers must be equal."""

import json
import os

ENGINES = ("DuckDB", "DuckDB, delta_scan", "Polars", "deltalake", "ClickHouse")
RIBERA = "`ribera sql`, the whole process"
SCAN_RATIO_MAX, STORE_RATIO_MAX = 2, 3
TIMES = int(os.environ.get("RIBERA_BENCH_LAYOUT_TIMES", "7"))
RATIOS = {"total by month": SCAN_RATIO_MAX, "a store's year": STORE_RATIO_MAX, "a day of all stores": SCAN_RATIO_MAX}


def ask_all(report, programs, made, table, ideal):
    asked = json.dumps(made.asked)
    found = {engine: programs.engines("ask", engine, table, ideal, asked, TIMES) for engine in ENGINES}
    found[RIBERA] = {name: by_ribera(programs, made, ideal, asked, name) for name in RATIOS}
    for name, ratio_max in RATIOS.items():
        require_equal(made, name, {engine: of[name] for engine, of in found.items()})
        for engine, of in found.items():
            judge(report, f"{made.name}: {name}, {engine}", of[name], ratio_max)


def require_equal(made, name, of_engines):
    answers = {f"{engine} {side}": of[side]["answer"] for engine, of in of_engines.items() for side in ("lake", "ideal")}
    first = next(iter(answers.values()))
    if not first:
        raise RuntimeError(f"{made.name}: {name}: no rows in the answer")
    wrong = [who for who, answer in answers.items() if answer != first]
    if wrong:
        raise RuntimeError(f"{made.name}: {name}: other answers: {', '.join(wrong)}")


def judge(report, what, runs, ratio_max):
    """By the best of several runs: what else the machine does only adds to it. CPU, because several cores that are
    shared with others say little on the wall."""
    best = {side: {clock: min(runs[side][clock]) for clock in ("cpu_s", "wall_s")} for side in ("lake", "ideal")}
    lake, ideal = best["lake"], best["ideal"]
    report.add(what, lake["cpu_s"] * 1e3, "CPU-ms", None, "ideal", ideal["cpu_s"] * 1e3, f"<= {ratio_max}")
    report.add(f"{what}: on the wall", lake["wall_s"] * 1e3, "ms", None, "ideal", ideal["wall_s"] * 1e3)


def by_ribera(programs, made, ideal, asked, name):
    """Two whole processes in turn; what the first turn finds in no cache is left out."""
    sql = QUERIES[name].format(**made.asked)
    runs = {side: {"wall_s": [], "cpu_s": []} for side in ("lake", "ideal")}
    for turn in range(TIMES + 1):
        once = {"lake": programs.ribera(made.lake, "sql", sql),
                "ideal": programs.measure_engines("once", ideal, asked, name)}
        for side, one in once.items():
            if turn > 0:
                runs[side]["wall_s"].append(one.wall_s)
                runs[side]["cpu_s"].append(one.cpu_s)
        rows = json.loads(once["lake"].output)["rows"]
        runs["lake"]["answer"] = [[row["k"], int(row["n"]), f"{float(row['s']):.2f}"] for row in rows]
        runs["ideal"]["answer"] = once["ideal"].last_json["answer"]
    return runs


SUMS = "count(*) AS n, sum(total) AS s FROM ventas"
QUERIES = {
    "total by month": f"SELECT month AS k, {SUMS} GROUP BY month ORDER BY 1",
    "a store's year": f"SELECT month AS k, {SUMS} WHERE store_id = '{{store}}' AND fecha BETWEEN DATE '{{first}}' AND"
                      " DATE '{last}' GROUP BY month ORDER BY 1",
    "a day of all stores": f"SELECT store_id AS k, {SUMS} WHERE fecha = DATE '{{day}}' GROUP BY store_id ORDER BY 1",
}
