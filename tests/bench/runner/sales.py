"""Point-of-sale lines with a realistic distribution, made the same every time.

Run with the peers' Python (it needs duckdb): `python sales.py ROWS FILE.csv`. 31 days for every five million rows begun; twelve
opening hours with two rushes; about five lines to a ticket and a few very long ones; 20,000
products of which few sell much; prices by product; weighed goods with three decimals; about
two of five tickets with a known customer; an eighth of the lines with a discount.
"""

import datetime
import sys

COLUMNS = (
    "fecha, tienda, ticket, linea, vendido_en, producto, cliente, cantidad, precio, descuento, total"
)
FIRST_DAY, WEEK_DAY, HALF_DAY = "2026-01-01", "2026-01-07", "2026-01-15"


def days(rows):
    """31 for every five million rows begun: a busy store's month."""
    return 31 * -(-rows // 5_000_000)


def last_day(rows):
    return str(datetime.date.fromisoformat(FIRST_DAY) + datetime.timedelta(days=days(rows) - 1))


# u(x, salt): a number in [0, 1) that depends on x and the salt alone.
QUERY = """
COPY (
  WITH tickets AS (
    SELECT t, 1 + floor(-4.0 * ln(1 - u(t, 'length')))::INT AS lines_n,
           floor(t * {days} / {tickets})::INT AS day,
           t * {days} / {tickets} - floor(t * {days} / {tickets}) AS part
    FROM range({tickets}) AS r(t)),
  timed AS (
    SELECT *, DATE '{first_day}' + day AS fecha,
           -- 09:00 to 21:00, denser around 13:00 and 18:30; the order of tickets is kept.
           32400 + floor(43200 * (part + 0.06 * sin(12.566370614 * part)))::INT AS second,
           1 + floor(8 * u(t, 'till'))::INT AS till,
           CASE WHEN u(t, 'known') < 0.42
                THEN 'C' || lpad((floor(60000 * pow(u(t, 'who'), 2))::INT)::VARCHAR, 7, '0') END AS cliente
    FROM tickets),
  lines AS (
    SELECT *, unnest(range(1, lines_n + 1))::INT AS linea FROM timed),
  priced AS (
    SELECT *, t * 1000 + linea AS i, floor(20000 * pow(u(t * 1000 + linea, 'product'), 3))::INT AS p FROM lines),
  sold AS (
    SELECT *,
      round(0.29 + 30 * pow(u(p, 'price'), 4), 1) + 0.09 * (p % 2) AS listed,
      CASE WHEN u(p, 'weighed') < 0.12 THEN round(0.08 + 2.4 * pow(u(i, 'weight'), 2), 3)
           WHEN u(i, 'count') < 0.81 THEN 1 ELSE 2 + floor(5 * pow(u(i, 'more'), 3)) END::DECIMAL(18,3) AS cantidad,
      CASE WHEN u(i, 'offer') < 0.12 THEN 0.05 * (1 + floor(12 * pow(u(i, 'off'), 2))) END AS off
    FROM priced),
  totals AS (
    SELECT *, (listed + CASE WHEN u(i, 'changed') < 0.03 THEN 0.1 ELSE 0 END)::DECIMAL(18,4) AS precio,
      CASE WHEN off IS NOT NULL THEN least(off, round(listed / 2, 2))::DECIMAL(18,2) END AS descuento
    FROM sold)
  SELECT * EXCLUDE (t) FROM (SELECT t, printf('%02d-%08d', till, t) AS ticket, linea, fecha, '017' AS tienda,
    fecha + to_seconds(second + linea * 3) AS vendido_en,
    '84' || lpad(((p * 7919 + 104729) % 10000000000)::VARCHAR, 11, '0') AS producto,
    cliente, cantidad, precio, descuento,
    round(cantidad::DOUBLE * precio::DOUBLE - coalesce(descuento, 0)::DOUBLE, 2)::DECIMAL(18,2) AS total
  FROM totals
  WHERE t < {tickets}
  ORDER BY t, linea
  LIMIT {rows}) AS cut
  ORDER BY ticket, linea
) TO '{csv}' (FORMAT csv, HEADER false, NULLSTR '\\N')
"""

MACRO = "CREATE MACRO u(x, salt) AS (hash(xor(hash(x::BIGINT), hash(salt))) % 4294967296)::DOUBLE / 4294967296.0"


def main():
    import duckdb

    rows, csv = int(sys.argv[1]), sys.argv[2]
    connection = duckdb.connect()
    connection.execute(MACRO)
    # Lines per ticket average 4.52: a few more than needed, cut by LIMIT.
    tickets = max(days(rows), int(rows / 4.5))
    connection.execute(QUERY.format(rows=rows, csv=csv, tickets=tickets, days=days(rows), first_day=FIRST_DAY))
    print(connection.execute(f"SELECT count(*) FROM read_csv('{csv}', header=false)").fetchone()[0])


if __name__ == "__main__":
    main()
