"""The databases of the agent's benchmark: how each is filled with the same sales, and who reads it."""

import contextlib
import csv
import sqlite3
from dataclasses import dataclass, field
from decimal import Decimal

from servers.firebird import Firebird
from servers.mariadb import MariaDb
from servers.postgres import Postgres
from servers.server import USER

from . import peers
from .sqlite import SqliteFile

PASSWORD = "ribera-bench"
COLUMNS = "ticket, linea, fecha, tienda, vendido_en, producto, cliente, cantidad, precio, descuento, total"
TABLE = """
CREATE TABLE ventas_detalle (
  ticket      VARCHAR(20)   NOT NULL,
  linea       INT           NOT NULL,
  fecha       DATE          NOT NULL,
  tienda      VARCHAR(8)    NOT NULL,
  vendido_en  {datetime}  NOT NULL,
  producto    VARCHAR(14)   NOT NULL,
  cliente     VARCHAR(12){null},
  cantidad    DECIMAL(18,3) NOT NULL,
  precio      DECIMAL(18,4) NOT NULL,
  descuento   DECIMAL(18,2){null},
  total       DECIMAL(18,2) NOT NULL{keys}
){engine};
"""
# What the file counts in: SQLite has no decimals, tills keep integers there.
SQLITE_SCALES = {"cantidad": 3, "precio": 4, "descuento": 2, "total": 2}
# Width of each column in Firebird's external file, which has no separators.
FIREBIRD_WIDTHS = {"ticket": 20, "linea": 11, "fecha": 10, "tienda": 8, "vendido_en": 19, "producto": 14, "cliente": 12,
                   "cantidad": 20, "precio": 20, "descuento": 20, "total": 20}


@dataclass
class Source:
    """A product: its server, how it is filled, and what else can read it."""

    server: type
    fill: object
    peers: tuple = ()
    # Slow ones run once.
    slow_peers: tuple = ()
    # What the agent's mapping says of a column, where it is more than its name.
    columns: dict = field(default_factory=dict)

    @property
    def title(self):
        return self.server.TITLE

    @property
    def name(self):
        return self.title.lower()

    def filled(self, folder, make_csv):
        """The running server, filled from the file that `make_csv` gives when it has to be."""
        def fill(fresh):
            with make_csv() as path:
                self.fill(fresh, path)

        return self.server(folder, PASSWORD).filled(fill)

    def truth(self, running):
        """Rows, and sums of quantity and amount, exactly, by the server itself."""
        rows, *sums = running.sql("SELECT count(*), sum(cantidad), sum(total) FROM ventas_detalle;").split()
        if self.columns:
            sums = [str(Decimal(one).scaleb(-SQLITE_SCALES[name])) for one, name in zip(sums, ("cantidad", "total"))]
        return " ".join([rows, *sums])


def fill_mariadb(fresh, path):
    table = TABLE.format(datetime="DATETIME(0)", null=" NULL", engine=" ENGINE=InnoDB",
                         keys=", PRIMARY KEY (ticket, linea), KEY por_fecha (fecha)")
    fresh.sql(table + f"""
        SET unique_checks=0, foreign_key_checks=0;
        LOAD DATA LOCAL INFILE '{path}' INTO TABLE ventas_detalle
          FIELDS TERMINATED BY ',' LINES TERMINATED BY '\\n' ({COLUMNS});
        ANALYZE TABLE ventas_detalle;""")


def fill_postgres(fresh, path):
    fresh.sql(TABLE.format(datetime="TIMESTAMP(0)", null=" NULL", engine="", keys="") + f"""
\\copy ventas_detalle FROM '{path}' WITH (FORMAT csv, NULL '\\N')
ALTER TABLE ventas_detalle ADD PRIMARY KEY (ticket, linea);
CREATE INDEX por_fecha ON ventas_detalle (fecha);
VACUUM ANALYZE ventas_detalle;""")


def fill_firebird(fresh, path):
    fresh.sql(TABLE.format(datetime="TIMESTAMP", null="", engine="", keys=""))
    with open(path, encoding="ascii", newline="") as lines:
        rows = ([None if value == "\\N" else value for value in values] for values in csv.reader(lines))
        fresh.load("ventas_detalle", FIREBIRD_WIDTHS, rows)
    fresh.sql(f"""
        ALTER TABLE ventas_detalle ADD PRIMARY KEY (ticket, linea);
        CREATE INDEX por_fecha ON ventas_detalle (fecha);
        GRANT SELECT ON ventas_detalle TO {USER};""")


def fill_sqlite(fresh, path):
    names = COLUMNS.split(", ")

    def converted(values):
        for name, value in zip(names, values):
            if value == "\\N":
                yield None
            elif name in SQLITE_SCALES:
                yield int(Decimal(value).scaleb(SQLITE_SCALES[name]))
            else:
                yield value

    types = {"linea": "INTEGER", **dict.fromkeys(SQLITE_SCALES, "INTEGER")}
    with contextlib.closing(sqlite3.connect(fresh.path)) as connection, open(path, encoding="ascii", newline="") as lines:
        connection.execute("PRAGMA journal_mode = OFF")
        declared = ", ".join(f"{name} {types.get(name, 'TEXT')}" for name in names)
        connection.execute(f"CREATE TABLE ventas_detalle ({declared}, PRIMARY KEY (ticket, linea))")
        marks = ", ".join("?" * len(names))
        connection.executemany(
            f"INSERT INTO ventas_detalle VALUES ({marks})", (tuple(converted(values)) for values in csv.reader(lines))
        )
        connection.execute("CREATE INDEX por_fecha ON ventas_detalle (fecha)")
        connection.commit()


SOURCES = [
    Source(MariaDb, fill_mariadb, (peers.DUCKDB, peers.CONNECTORX), (peers.DLT,)),
    Source(Postgres, fill_postgres, (peers.DUCKDB, peers.CONNECTORX, peers.RIVET), (peers.DLT,)),
    Source(Firebird, fill_firebird),
    Source(SqliteFile, fill_sqlite, (peers.DUCKDB, peers.CONNECTORX), (peers.DLT,),
           {name: f'{{ sql = "{name}", scale = {scale} }}' for name, scale in SQLITE_SCALES.items()}),
]
