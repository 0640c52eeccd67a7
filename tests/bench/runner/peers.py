"""The peers: a venv of theirs, and one extraction by each, run as a program of its own.

`python peers.py NAME URI OUT.parquet COLUMNS` with the venv's Python does one extraction. All
write zstd at level 3, DuckDB's and our own default.
"""

import glob
import os
import subprocess
import sys

PACKAGES = [
    "duckdb==1.5.5", "duckdb-extension-mysql-scanner==1.5.5", "duckdb-extension-postgres-scanner==1.5.5",
    "duckdb-extension-sqlite-scanner==1.5.5", "connectorx==0.4.6", "pyarrow==26.0.1", "rivet-cli==0.32.2", "dlt==1.31.0", "sqlalchemy<3", "pymysql",
    "psycopg2-binary",
]
DUCKDB, CONNECTORX, RIVET, DLT = "DuckDB 1.5.5 scanner", "connectorx 0.4.6", "rivet 0.32.2", "dlt 1.31.0"
ZSTD_LEVEL = 3


def python(cache):
    """The venv's Python; the venv is made when it is not there."""
    venv = os.path.join(cache, "peers")
    mark = os.path.join(venv, "installed")
    wanted = "\n".join(PACKAGES)
    if not os.path.exists(mark) or open(mark, encoding="utf-8").read() != wanted:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([f"{venv}/bin/pip", "install", "-q", "--disable-pip-version-check", *PACKAGES], check=True)
        with open(mark, "w", encoding="utf-8") as file:
            file.write(wanted)
    return f"{venv}/bin/python"


def command(cache, name, uri, out, columns):
    return [python(cache), os.path.abspath(__file__), name, uri, out, columns]


def sums(cache, files):
    """Rows and sums of files of ours, by an independent reader: one line of text."""
    code = (
        "import duckdb, sys; print(*duckdb.execute("
        "'SELECT count(*), sum(cantidad), sum(total) FROM read_parquet(?)', [sys.argv[1:]]).fetchone())"
    )
    return subprocess.run([python(cache), "-c", code, *files], check=True, capture_output=True, text=True).stdout


def decimals(cache, files):
    """How a peer's files keep quantity and amount, by an independent reader: one line of text."""
    code = (
        "import duckdb, sys; types = {name: kind for name, kind, *_ in duckdb.execute("
        "'DESCRIBE SELECT cantidad, total FROM read_parquet(?)', [sys.argv[1:]]).fetchall()};"
        "print(types['cantidad'], types['total'], sep=', ')"
    )
    done = subprocess.run([python(cache), "-c", code, *files], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def by_duckdb(uri, out, columns):
    import duckdb
    from urllib.parse import urlparse

    at = urlparse(uri)
    login = f"host={at.hostname} port={at.port} user={at.username} password={at.password}"
    kind, place = {
        "mysql": ("mysql", f"{login} database={at.path[1:]}"),
        "postgresql": ("postgres", f"{login} dbname={at.path[1:]}"),
        "sqlite": ("sqlite", at.path),
    }[at.scheme]
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute(f"LOAD '{scanner(kind)}'")
    connection.execute(f"ATTACH '{place}' AS pos (TYPE {kind}, READ_ONLY)")
    connection.execute(
        f"COPY (SELECT {columns} FROM pos.ventas_detalle) TO '{out}' "
        f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {ZSTD_LEVEL})"
    )


def scanner(kind):
    import importlib

    package = importlib.import_module(f"duckdb_extension_{kind}_scanner")
    folder = os.path.dirname(package.__file__)
    found = glob.glob(f"{folder}/**/*.duckdb_extension", recursive=True)
    return found[0]


def by_connectorx(uri, out, columns):
    import connectorx
    from pyarrow.parquet import ParquetWriter

    batches = connectorx.read_sql(
        uri, f"SELECT {columns} FROM ventas_detalle", return_type="arrow_stream", batch_size=50000
    )
    with ParquetWriter(out, batches.schema, compression="zstd", compression_level=ZSTD_LEVEL) as writer:
        for batch in batches:
            writer.write_batch(batch)


def by_rivet(uri, out, columns):
    """In a fresh folder, where it keeps its state; it names its files itself."""
    folder = f"{out}.rivet"
    os.makedirs(folder)
    with open(f"{folder}/rivet.yaml", "w", encoding="utf-8") as file:
        file.write(f"""
source:
  type: {uri.split(":")[0].replace("postgresql", "postgres")}
  url_env: DATABASE_URL
  tuning: {{profile: fast}}
exports:
  - name: ventas
    query: "SELECT {columns} FROM ventas_detalle"
    mode: full
    format: parquet
    compression: zstd
    destination: {{type: local, path: ./out}}
""")
    rivet = os.path.join(os.path.dirname(sys.executable), "rivet")
    subprocess.run([rivet, "run", "--config", "rivet.yaml"], cwd=folder, check=True,
                   env={**os.environ, "DATABASE_URL": uri})


def by_dlt(uri, out, columns):
    import dlt
    from dlt.sources.sql_database import sql_table

    folder = f"{out}.dlt"
    table = sql_table(
        uri.replace("mysql://", "mysql+pymysql://").replace("postgresql://", "postgresql+psycopg2://")
        .replace("sqlite://", "sqlite:///"),
        table="ventas_detalle", backend="pyarrow", chunk_size=50000, reflection_level="full_with_precision",
    )
    pipeline = dlt.pipeline(
        "bench", destination=dlt.destinations.filesystem(bucket_url=f"file://{folder}"), dataset_name="pos",
        pipelines_dir=f"{folder}/state",
    )
    pipeline.run(table, loader_file_format="parquet")


def main():
    name, uri, out, columns = sys.argv[1:5]
    {DUCKDB: by_duckdb, CONNECTORX: by_connectorx, RIVET: by_rivet, DLT: by_dlt}[name](uri, out, columns)


if __name__ == "__main__":
    main()
