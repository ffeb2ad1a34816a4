"""Reads bad_documents.txt; its head says how it is written."""

import re
from dataclasses import dataclass


@dataclass
class Case:
    name: str
    schema_rejects: bool
    text: bytes
    expected: list

    def agrees_with(self, lines):
        return lines == self.expected


def decoded(text):
    text = re.sub(r"\{repeat (\d+) ([^}]*)\}", lambda m: int(m[1]) * m[2], text)

    def byte(match):
        code = match[1]
        plain = {"\n": b"", "n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}
        return plain[code] if code in plain else bytes([int(code[1:], 16)])

    pieces = re.split(r"\\(\n|[nrt\\]|x[0-9a-fA-F]{2})", text)
    assert not any("\\" in piece for piece in pieces[::2]), text
    return b"".join(piece.encode() if at % 2 == 0 else byte([None, piece])
                    for at, piece in enumerate(pieces))


def read_cases(path):
    """Case by case: a head, the text up to "--- expect", the errors up to an empty line."""
    with open(path, encoding="utf-8", newline="") as file:
        blocks = re.split(r"^=== ", file.read(), flags=re.M)[1:]
    return [read_case(block) for block in blocks]


def read_case(block):
    head, rest = block.split("\n", 1)
    name, schema, *more = head.split(" | ")
    assert schema in ("schema: rejects", "schema: cannot say"), head
    assert more in ([], ["escaped"]), head
    text, errors = re.split(r"^--- expect\n", rest, flags=re.M)
    expected = errors.split("\n\n", 1)[0].splitlines()
    assert expected, head
    return Case(name, schema == "schema: rejects", decoded(text) if more else text.encode(), expected)
