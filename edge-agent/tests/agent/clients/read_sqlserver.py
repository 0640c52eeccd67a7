"""Reads a result by a client that is not the agent's: read_sqlserver.py CLIENT PORT SQL.

Prints a JSON list of rows, each value as text: decimals without zeros at their end, floats as their
bytes.
"""

import datetime
import decimal
import json
import struct
import sys
import uuid


def connect(client, port):
    if client == "freetds":
        import pymssql

        return pymssql.connect(
            server="127.0.0.1", port=port, user="lector", password="secret", database="tienda", tds_version="7.4", charset="UTF-8", autocommit=True
        )
    import pytds

    return pytds.connect("127.0.0.1", "tienda", "lector", "secret", port=port, autocommit=True, use_tz=datetime.timezone.utc)


def shown(value):
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, decimal.Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, float):
        return struct.pack("<d", value).hex()
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, uuid.UUID):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.time):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def main(client, port, sql):
    with connect(client, int(port)) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        json.dump([[shown(value) for value in row] for row in cursor.fetchall()], sys.stdout)


main(*sys.argv[1:])
