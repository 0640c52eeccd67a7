"""`bench layout`: how tables lie in the lake once `maintain` has merged them, and what readers make of it beside
an ideal copy (one sorted file for each month); what one commit costs beside tables of many store-months; coverage
after some batches more.

Chains: the real stores' year, and generated ones with a long tail: many stores, and many years. Every batch goes through
the real ingest, a batch for each store and month. In full they are 10000x13 and 1000x240 (an hour and more of ingest);
smaller ones are measured where nothing else is said. The names of the rows say what was measured.

Options are environment variables: RIBERA_BENCH_LAYOUT (parts: real, wide, old, commit, coverage),
RIBERA_BENCH_LAYOUT_WIDE and _OLD (STORESxMONTHS, several with commas), RIBERA_BENCH_LAYOUT_TIMES (runs of each question and side, 7),
RIBERA_BENCH_LAYOUT_KEEP=yes (a chain's lake stays in the cache; the next run asks it again, and does not measure its making)."""

import os
import shutil

from . import layout_chains, layout_commit, layout_questions, measure, place

PARTS = ("real", "wide", "old", "commit", "coverage")
MERGED_FILES_MAX, REAL_FILES_MAX = 2, 24
FILE_BYTES = 128 << 20


def run(report):
    asked = os.environ.get("RIBERA_BENCH_LAYOUT", ",".join(PARTS)).split(",")
    unknown = set(asked) - set(PARTS)
    if unknown:
        raise SystemExit(f"RIBERA_BENCH_LAYOUT: no such part: {', '.join(sorted(unknown))}")
    programs = layout_chains.Programs(place.bench_program(), place.host_program(), place.tests_python())
    for part in PARTS:
        if part not in asked:
            continue
        print(f"  -- {part}", flush=True)
        if part == "commit":
            layout_commit.costs(report, programs)
        elif part == "coverage":
            layout_commit.coverage(report, programs)
        else:
            for kind in layout_chains.kinds(part):
                with kind.folder() as folder:
                    chain(report, programs, kind, folder)
                    report.write()
        # What was measured stands, whatever becomes of the rest.
        report.write()


def chain(report, programs, kind, folder):
    made = layout_chains.kept(folder)
    if not made:
        made = kind.make(programs, os.path.join(folder, "lake"))
        merging(report, made)
        layout_chains.keep(folder, made)
    # As a host does every few minutes: a query rests on it.
    measure.run([programs.bench, "keep-coverage", f"--folder={made.lake}"])
    table = os.path.join(made.lake, "lake", "ventas")
    ideal = os.path.join(folder, "ideal")
    shutil.rmtree(ideal, ignore_errors=True)
    copy = programs.engines("ideal", table, ideal)
    if copy["rows"] != made.rows:
        raise RuntimeError(f"{made.name}: the lake holds {copy['rows']} rows of {made.rows}")
    files(report, made, programs.engines("census", table), copy)
    layout_questions.ask_all(report, programs, made, table, ideal)


def files(report, made, found, copy):
    def say(what, *words):
        report.add(f"{made.name}: {what}", *words)

    months = found["months"].values()
    live_bytes = sum(map(sum, months))
    say("files in the table", sum(map(len, months)), "files", f"<= {REAL_FILES_MAX}" if made.is_real else None)
    say("files per 128 MB of a month, most", max(len(sizes) / max(1, sum(sizes) / FILE_BYTES) for sizes in months),
        "files", f"<= {MERGED_FILES_MAX}")
    say("bytes of the table's files", live_bytes, "bytes", None, "ideal", copy["bytes"])
    say("bytes of the last checkpoint", found["checkpoint_bytes"], "bytes")
    say("log entries", found["entries"], "entries")
    say("bytes of log entries", found["entry_bytes"], "bytes")
    say("bytes of facts objects, those of replaced files too", found["facts_bytes"], "bytes")
    say("objects in the whole store, before any is a week old", objects(made.lake), "objects", None, "batches",
        made.batches)


def objects(lake):
    return sum(len(names) for _, _, names in os.walk(lake))


def merging(report, made):
    report.add(f"{made.name}: `maintain`, rows merged", made.rows_merged, "rows")
    report.add(f"{made.name}: `maintain`, merge speed", made.rows_merged / made.merge_cpu_s, "rows/CPU-s")
    report.add(f"{made.name}: `maintain`, time", made.merge_wall_s, "s")
    report.add(f"{made.name}: `maintain`, resident memory", made.merge_rss_bytes / 2**20, "MB")
