"""A table with a column of each type, may it be null or not, and texts for it: usual, at the edges, and wrong."""

from __future__ import annotations

import json
import random
import struct
from uuid import UUID

import pyarrow as pa

from ecom_assets.core import values
from ecom_assets.dataset.kind import Kind
from ecom_assets.dataset.model import HBaseLayout, Table

TYPES = {
    "text": "string",
    "whole": "long",
    "small": "int",
    "yes": "boolean",
    "wide": "double",
    "narrow": "float",
    "raw": "bytes",
    "day": {"type": "int", "logicalType": "date"},
    "clock_ms": {"type": "int", "logicalType": "time-millis"},
    "clock_us": {"type": "long", "logicalType": "time-micros"},
    "at_ms": {"type": "long", "logicalType": "timestamp-millis"},
    "at_us": {"type": "long", "logicalType": "timestamp-micros"},
    "there_ms": {"type": "long", "logicalType": "local-timestamp-millis"},
    "there_us": {"type": "long", "logicalType": "local-timestamp-micros"},
    "price": {"type": "bytes", "logicalType": "decimal", "precision": 7, "scale": 2},
    "amount": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10},
    "device": {"type": "string", "logicalType": "uuid"},
    "size": {"type": "enum", "name": "Size", "symbols": ["S", "M", "XL"]},
}


def avsc() -> dict:
    """The schema: ``id``, then each type twice, the second time nullable."""
    fields: list[dict] = [{"name": "id", "type": "long"}]
    fields += [{"name": name, "type": declared} for name, declared in TYPES.items()]
    for name, declared in TYPES.items():
        other = json.loads(json.dumps(declared).replace('"Size"', '"MaybeSize"'))
        fields.append({"name": f"maybe_{name}", "type": ["null", other], "default": None})
    return {"type": "record", "name": "things", "fields": fields}


NAMES = tuple(field["name"] for field in avsc()["fields"])
THINGS = Table(
    "things", avsc(), "things.avsc", ("id",), ("id",), {}, (),
    HBaseLayout("things", {"d": NAMES}, ("id",), ("int64",)),
)  # fmt: skip

_MOMENTS = ("0001-01-01", "9999-12-31T23:59:59.999", "2022-07-31 10:00:00.5", "1969-12-31T23:59:59")
_USUAL: dict[str, tuple[str, ...]] = {
    "string": ("", "a", 'ü, "x"\n', "0", "null"),
    "long": ("0", "-1", str(2**63 - 1), str(-(2**63)), "1234567"),
    "int": ("0", "-1", str(2**31 - 1), str(-(2**31))),
    "boolean": ("true", "false"),
    "bytes": ("QUI=", "/w==", "QQ==", "AAEC"),
    "date": ("0001-01-01", "9999-12-31", "1970-01-01", "2024-02-29"),
    "time-millis": ("00:00", "23:59:59.999", "10:00:01"),
    "time-micros": ("00:00", "23:59:59.999999", "10:00:01.5"),
    "timestamp-millis": (*_MOMENTS, "2022-07-31T10:00+07", "2022-07-31T10:00:00.25-11:30"),
    "timestamp-micros": (*_MOMENTS, "2022-07-31T10:00+07", "2022-07-31T10:00:00.000001Z"),
    "local-timestamp-millis": _MOMENTS,
    "local-timestamp-micros": (*_MOMENTS, "2022-07-31T10:00:00.000001"),
    "decimal(7,2)": ("0", "-0.01", "99999.99", "-99999.99", "1.28", "-1.28", "327.68", "-327.68", "7"),
    "decimal(38,10)": ("9" * 28 + "." + "9" * 10, "-" + "9" * 28, "0.0000000001", "-0.0000000128"),
    "enum": ("S", "M", "XL"),
}
_NUMBERS = ("0", "-0", "1.5", "1e20", "1e21", "1e-7", "3.25E+10", "12345.678", "16777217", "1234567890123456.75")


def text(kind: Kind, chance: random.Random) -> str:
    """A text that is a value."""
    if kind.name == "uuid":
        made = str(UUID(int=chance.getrandbits(128)))
        return made.upper() if chance.random() < 0.3 else made
    return chance.choice(_USUAL.get(kind.name, _NUMBERS))


def any_text(kind: Kind, chance: random.Random) -> str:
    """A text that may be a value: one made of parts, and often with a letter too many, too few, or another."""
    made = text(kind, chance)
    if chance.random() < 0.6:
        day = f"{chance.randrange(1, 10000):04d}-{chance.randrange(14):02d}-{chance.randrange(33):02d}"
        clock = f"{chance.randrange(25):02d}:{chance.randrange(61):02d}" + chance.choice(
            ["", f":{chance.randrange(60):02d}", f":{chance.randrange(60):02d}.{chance.randrange(10**6)}"]
        )
        match kind.name:
            case "double" | "float":
                (found,) = struct.unpack(">d", chance.randbytes(8))
                short = chance.uniform(-1, 1) * 10 ** chance.randrange(-9, 25)
                made = chance.choice([repr(found), f"{short:.{chance.randrange(1, 18)}g}"])
            case "date":
                made = day
            case "time-millis" | "time-micros":
                made = clock
            case name if "timestamp" in name:
                made = f"{day}{chance.choice('T ')}{clock}{chance.choice(['', '', 'Z', '+05', '-11:30'])}"
            case name if name.startswith("decimal"):
                made = f"{chance.randrange(-(10**8), 10**8) / 10 ** chance.randrange(5)}"
    if made and chance.random() < 0.5:
        at, letter = chance.randrange(len(made)), chance.choice("0123456789-+.:TZe ,")
        made = chance.choice([made[:at] + letter + made[at:], made[:at] + made[at + 1 :], made[:at] + letter])
    return made


def rows(count: int, seed: int = 0) -> list[dict[str, str | None]]:
    """Rows as the texts of a CSV file; a null is ``None``."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        row: dict[str, str | None] = {"id": str(number)}
        for column in THINGS.columns[1:]:
            row[column.name] = None if column.nullable and chance.random() < 0.3 else text(column.kind, chance)
        made.append(row)
    return made


def batch(count: int, seed: int = 0) -> pa.RecordBatch:
    """The same as values, schema ``THINGS.arrow``."""
    made = rows(count, seed)
    columns = [pa.array([row[column.name] for row in made], pa.string()) for column in THINGS.columns]
    typed = [values.parse(found, column.kind) for found, column in zip(columns, THINGS.columns, strict=True)]
    return pa.RecordBatch.from_arrays(typed, schema=THINGS.arrow)
