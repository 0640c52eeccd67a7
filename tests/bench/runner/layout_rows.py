"""A year of grocery sales (tests/fixtures/sales.py) as one Parquet file with the columns of `ventas`, in order
of store and day: `python layout_rows.py FILE.parquet`, with the tests' Python. Prints which sales they are."""

import json
import os
import sys

TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TESTS, "fixtures"))

import duckdb  # noqa: E402
import polars as pl  # noqa: E402
import sales  # noqa: E402

# Cents times an exact hundredth: a decimal stays a decimal. Tills print no price that is not exact.
QUERY = """
COPY (
  SELECT fecha, id AS ubicacion_id, ticket_id::VARCHAR AS ticket_id, linea, vendido_en,
         producto_id::VARCHAR AS producto_id, cliente_id::VARCHAR AS cliente_id,
         cantidad::DECIMAL(18,3) AS cantidad,
         CASE WHEN cantidad > 0 AND (centavos * 100) % cantidad = 0
              THEN (centavos * 100 // cantidad * 0.0001::DECIMAL(5,4))::DECIMAL(18,4) END AS precio_unitario,
         (descuento_centavos * 0.01::DECIMAL(3,2))::DECIMAL(18,2) AS descuento,
         (centavos * 0.01::DECIMAL(3,2))::DECIMAL(18,2) AS total
  FROM rows ORDER BY id, fecha, ticket_id, linea
) TO '{out}' (FORMAT parquet, COMPRESSION zstd)
"""


def main():
    table, origin = sales.load(None)
    moment = pl.col("local").dt.replace_time_zone(sales.ZONE, ambiguous="earliest", non_existent="null")
    ids = pl.col("store").map_elements(sales.store_id, return_dtype=pl.String)
    rows = table.with_columns(id=ids, vendido_en=moment.dt.convert_time_zone("UTC")).to_arrow()  # noqa: F841
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(QUERY.format(out=sys.argv[1]))
    stores = [sales.store_id(store) for store in table["store"].unique().sort()]
    print(json.dumps({"origin": origin, "rows": table.height, "store_ids": stores, "zone": sales.ZONE}))


if __name__ == "__main__":
    main()
