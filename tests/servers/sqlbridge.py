"""Runs pysqlbridge with a certificate of the test's own: sqlbridge.py CONFIG CERTIFICATE KEY PORT.

Of the types of parameters it lacks `date`, which is what the agent sends for a day: it is taught
that one here, as the protocol describes it.
"""

import datetime
import logging
import sys

from pysqlbridge import catalog, logins, server
from pysqlbridge.certificate import Certificate
from pysqlbridge.tds import rpc

DATEN = 0x28


def read_value(payload, at, type_id, known=rpc._read_value):
    if type_id != DATEN:
        return known(payload, at, type_id)
    length, at = payload[at], at + 1
    if length == 0:
        return None, at
    days = int.from_bytes(payload[at : at + length], "little")
    return datetime.datetime(1, 1, 1) + datetime.timedelta(days=days), at + length


def main(config, certificate, key, port):
    logging.basicConfig(level=logging.INFO)
    rpc._read_value = read_value
    with open(certificate, "rb") as cert_file, open(key, "rb") as key_file:
        pair = Certificate(cert_pem=cert_file.read(), key_pem=key_file.read())
    tables = catalog.load(config)
    server.serve("127.0.0.1", int(port), pair, tables.answer, logins=logins.load(config))


main(*sys.argv[1:])
