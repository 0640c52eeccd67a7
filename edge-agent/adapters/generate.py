#!/usr/bin/env python3
"""INSERT statements with invented data for one of the three products: the same at every run.

    python3 generate.py mostrador|abasto|quirofano [--from 2017-04-24] [--days 16] [--tickets 12] > data.sql

Sales, returns, cancelled documents, names with ñ and €, amounts exact in cents.
"""

import argparse
import datetime
import random

DEPARTMENTS = [("Abarrotes", ["Granos", "Conservas"]), ("Niños", ["Pañales", "Juguetes"]), ("Limpieza", ["Ropa", "Baño"])]
SUPPLIERS = ["Distribuidora Ñandú", "Comercial del Sur", "Importadora 100 €"]
ARTICLES = ["Placa de titanio", "Tornillo cortical", "Pinza de disección", "Sierra oscilante", "Clavo centromedular"]
PRODUCTS = 40


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("product", choices=sorted(WRITERS))
    options.add_argument("--from", dest="first", type=datetime.date.fromisoformat, default=datetime.date(2017, 4, 24))
    options.add_argument("--days", type=int, default=16)
    options.add_argument("--tickets", type=int, default=12, help="of each day")
    asked = options.parse_args()
    dates = [asked.first + datetime.timedelta(days=day) for day in range(asked.days)]
    WRITERS[asked.product](random.Random(2017), dates, asked.tickets)


def insert(table, *values):
    print(f"INSERT INTO {table} VALUES ({', '.join(map(literal, values))});")


def literal(value):
    if value is None:
        return "NULL"
    if isinstance(value, (int, Exact)):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


class Exact:
    """A decimal from an integer that counts its last digit."""

    def __init__(self, count, scale):
        self.count, self.scale = count, scale

    def __str__(self):
        sign, digits = "-" if self.count < 0 else "", f"{abs(self.count):0{self.scale + 1}d}"
        return f"{sign}{digits[:-self.scale]}.{digits[-self.scale:]}"


def lines(chance, tickets):
    """Of each ticket its lines: product, quantity in thousandths, price in ten-thousandths, cents."""
    for _ in range(tickets):
        ticket = []
        for product in chance.sample(range(1, PRODUCTS + 1), chance.randint(1, 4)):
            quantity = chance.choice([1000, 1000, 2000, 500, 1250])
            cents = chance.randint(90, 99_990)
            # Something was brought back.
            sign = -1 if chance.random() < 0.06 else 1
            ticket.append((product, sign * quantity, cents * 100, sign * (quantity * cents + 500) // 1000))
        yield ticket


def code(product):
    return f"{'Ñ' if product % 9 == 0 else 'P'}-{product:04d}"


def clock(chance, number):
    return f"{8 + number % 12:02d}:{chance.randint(0, 59):02d}:{chance.randint(0, 59):02d}"


def abasto(chance, dates, tickets):
    insert("sucursal", 1, "Abasto Centro")
    for number, name in enumerate(SUPPLIERS, 1):
        insert("proveedores", number, name)
    subcategory = 0
    for number, (department, categories) in enumerate(DEPARTMENTS, 1):
        insert("departamentos", number, department)
        for category in categories:
            subcategory += 1
            insert("categorias", subcategory, number, category)
            insert("subcategorias", subcategory, subcategory, f"{category} surtido")
    for product in range(1, PRODUCTS + 1):
        # Some belong nowhere, as in every real catalogue.
        supplier = None if product % 11 == 0 else product % 3 + 1
        stock, cost = Exact(chance.randint(-2000, 90_000), 3), Exact(chance.randint(100, 900_000), 4)
        insert("productos", code(product), f"Producto {product} de 1 €", supplier, product % 6 + 1, stock, cost)
    number = 0
    for date in dates:
        for ticket in lines(chance, tickets):
            number += 1
            state = "C" if chance.random() < 0.05 else "A"
            insert("tickets", number, date, clock(chance, number), f"cajero {number % 3}", state)
            for line, (product, quantity, price, total) in enumerate(ticket, 1):
                insert("partidas", number, line, code(product), Exact(quantity, 3), Exact(price, 4), Exact(total, 2))


def mostrador(chance, dates, tickets):
    for product in range(1, PRODUCTS + 1):
        insert("Productos", code(product), f"Producto {product} de 1 €", Exact(chance.randint(100, 900_000), 4))
        for shelf in (1, 2):
            insert("Existencias", code(product), shelf, Exact(chance.randint(-2000, 90_000), 3))
    number = 0
    for date in dates:
        for ticket in lines(chance, tickets):
            number += 1
            state = "X" if chance.random() < 0.05 else "P"
            customer = f"C{number % 17}" if number % 3 else None
            moment = f"{date}T{clock(chance, number)}.{number % 1000:03d}"
            insert("Tickets", number, date, moment, customer, state)
            for line, (product, quantity, price, total) in enumerate(ticket, 1):
                discount = Exact(chance.choice([0, 0, 0, 150]), 2)
                insert(
                    "TicketLineas", number, line, code(product), Exact(quantity, 3), Exact(price, 4), discount,
                    Exact(total, 2)
                )


def quirofano(chance, dates, tickets):
    kinds = [("FAC", "Venta"), ("DEV", "Devolución"), ("COM", "Compra"), ("TRE", "Traspaso entrada"), ("TRS", "Traspaso salida")]
    for kind, name in kinds:
        insert("TIPOS_DOCUMENTO", kind, name)
    for number, (name, kind) in enumerate([("Principal", "propio"), ("Hospital Peñón", "consignación"), ("Taller", "reparación")], 1):
        insert("ALMACENES", number, name, kind)
    for product in range(1, PRODUCTS + 1):
        flags = ["N", "N", "N"]
        if product % 5:
            flags[product % 3] = "S"
        insert("ARTICULOS", code(product), f"{ARTICLES[product % 5]} {product}", *flags, Exact(chance.randint(100, 900_000), 4))
        for warehouse in (1, 2):
            insert("EXISTENCIAS", code(product), warehouse, Exact(chance.randint(0, 90_000), 3))
    number = 0
    for date in dates:
        for ticket in lines(chance, tickets):
            number += 1
            kind = kinds[number % 5][0]
            state = "C" if chance.random() < 0.05 else "A"
            insert("DOCUMENTOS", number, kind, f"{kind}-{number:05d}", date, number % 3 + 1, state)
            for line, (product, quantity, price, total) in enumerate(ticket, 1):
                insert("PARTIDAS", number, line, code(product), Exact(quantity, 3), Exact(price, 4), Exact(total, 2))


WRITERS = {"abasto": abasto, "mostrador": mostrador, "quirofano": quirofano}

if __name__ == "__main__":
    main()
