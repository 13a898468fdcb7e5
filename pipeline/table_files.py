"""How a CSV file is written, and the pictures that it names. Shared by the converter and the listing of a source."""

import csv
import io
import os
from pathlib import Path
from typing import NamedTuple, TextIO

from errors import UserError
from files import open_regular

_PACKED = {b"\x1f\x8b": "compressed by gzip; unpack it", b"PK": "a spreadsheet or zip archive; save it as CSV in UTF-8"}


class Table(NamedTuple):
    """A CSV file and how it is written."""

    path: Path
    encoding: str
    delimiter: str

    def text(self) -> TextIO:
        """The opened file."""
        return io.TextIOWrapper(open_regular(self.path), self.encoding, newline="")

    def rows(self, file: TextIO) -> "csv.reader":
        """The rows of the opened file, the header first."""
        return csv.reader(file, delimiter=self.delimiter)


def open_table(source: Path) -> Table:
    """The encoding and delimiter of a file: spreadsheets also write UTF-16, semicolons and tabs.

    Raises UserError for a compressed file, and UnicodeDecodeError.
    """
    with open_regular(source) as file:
        start = file.read(2)
    if start in _PACKED:
        raise UserError(f"{source} is {_PACKED[start]}")
    table = Table(source, "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", ",")
    with table.text() as file:
        first = file.readline()
    return table._replace(delimiter=max(",;\t", key=first.count))


def column_names(header: list[str]) -> list[str]:
    """The names of the columns as they are compared: without spaces around them, in lower case."""
    return [name.strip().lower() for name in header]


def find_picture(directory: Path, path: str) -> str | None:
    """The path of a file relative to `directory`, with / also for the \\ of a table from Windows; None for no file."""
    for name in (path, path.replace("\\", "/")):
        if name and os.path.isfile(directory / name):  # Path.is_file raises on a name that is too long
            return name
    return None
