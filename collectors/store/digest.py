"""The digest of a part: SHA-256 over the whole file, written into its parquet footer, so that damage is seen.

Parquet's own page checksums cover neither the footer nor the statistics in it; here every byte counts. The digest
stands twice in the footer's key-value metadata, as 64 hexadecimal digits, and is taken over the file with both written
as zeros: a flipped bit in one of the two keys leaves the other. Beside it stands whose part it is, so that one that was
copied over another's name is seen.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

KEYS = (b"sha256_of_file", b"sha256_of_file_again")
"""Where the digest stands in the parquet metadata."""

NAME = b"part_of"
"""Where ``TABLE/SLOT`` stands there; parts of older versions lack it."""

MANY_ROWS = 100_000
"""Rows in parts with less than a byte for each; with more they are refused, as they unpack to any number of bytes."""


class Unpacked:
    """Counts the rows of parts that are read together, of those alone that have less than a byte for each."""

    def __init__(self) -> None:
        self._rows = 0

    def refusal(self, rows: int, size: int) -> str | None:
        """Why a part of so many rows in so many bytes is not read; None where it is."""
        self._rows += rows if size < rows else 0
        if self._rows > MANY_ROWS:
            return f"{rows:,} rows in {size:,} bytes are no measurements"
        return None


_BLANK = b"0" * 64
_TAIL = 8
"""Bytes at the end of a parquet file: the footer's length, and ``PAR1``."""
_MAGIC = b"PAR1"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Checked:
    """What a look at every byte of a part says: whether it has a digest, and what is wrong with it, if anything.

    A part without a digest, of an older version, is read without this check where its footer can be read.
    """

    signed: bool
    damage: str | None = None


@contextmanager
def digested_writer(file: Any, schema: pa.Schema, path: str) -> Iterator[pq.ParquetWriter]:
    """A parquet writer into an open binary file, whose footer gets the digest. Nothing is read back or kept.

    Args:
        path: of the part that the file is to be, ``.../TABLE/SLOT.parquet``.
    """
    through = _Hashing(file)
    sink = pa.PythonFile(through, mode="w")
    writer = pq.ParquetWriter(sink, schema, compression="zstd")
    try:
        yield writer
        writer.add_key_value_metadata({NAME: _name(path), **dict.fromkeys(KEYS, _BLANK)})
        through.hold()
        writer.close()
        through.sign()
    finally:
        if writer.is_open:
            through.hold()
            writer.close()


def write_digested(file: Any, rows: pa.Table, path: str) -> None:
    """Write one table as a parquet part with its digest; ``path`` as :func:`digested_writer` has it."""
    with digested_writer(file, rows.schema, path) as writer:
        writer.write_table(rows)


class _Hashing(io.RawIOBase):
    """Passes bytes on and hashes them; from :meth:`hold` on it keeps them, until :meth:`sign` has the digest in."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self._held: list[bytes] | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        if self._held is not None:
            self._held.append(content)
        else:
            self._sum.update(content)
            self._file.write(content)
        return len(content)

    def hold(self) -> None:
        self._held = self._held or []

    def sign(self) -> None:
        footer = b"".join(self._held or [])
        self._sum.update(footer)
        digest = self._sum.hexdigest().encode()
        for start in _places(footer):
            footer = footer[:start] + digest + footer[start + len(digest) :]
        self._file.write(footer)


def check(filesystem: fs.FileSystem, path: str) -> Checked:
    """Read a part whole and compare it with its digest and its name.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        with filesystem.open_input_file(path) as file:
            return _checked(file, _name(path))
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        return Checked(False, " ".join(str(error).split())[:100] or "cannot be read")


def _name(path: str) -> bytes:
    return "/".join(path.split("/")[-2:]).removesuffix(".parquet").encode()


def _checked(file: Any, name: bytes) -> Checked:
    size = file.size()
    if size == 0:
        return Checked(False, "is empty")
    footer = _footer(file, size)
    if not footer:
        return Checked(False, "is cut off, or no parquet file")
    places = _places(footer)
    if not places:
        file.seek(0)
        pq.read_metadata(file)
        return Checked(False)
    found = {footer[start : start + len(_BLANK)] for start in places}
    blank = footer
    for start in places:
        blank = blank[:start] + _BLANK + blank[start + len(_BLANK) :]
    total = hashlib.sha256()
    file.seek(0)
    for block in _blocks(file, size - len(footer)):
        total.update(block)
    total.update(blank)
    if found != {total.hexdigest().encode()} or len(places) < len(KEYS):
        return Checked(True, "is not as it was written (its digest is another)")
    if _head(NAME) in footer and _head(NAME) + _sized(name) not in footer:
        return Checked(True, "is another part under this name")
    return Checked(True)


def _footer(file: Any, size: int) -> bytes:
    """The footer with its length and magic; nothing where there is none."""
    if size < 2 * _TAIL:
        return b""
    file.seek(size - _TAIL)
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[:4], "little") + _TAIL
    if tail[4:] != _MAGIC or length > size:
        return b""
    file.seek(size - length)
    return bytes(file.read(length))


def _places(footer: bytes) -> list[int]:
    """Where in a footer the values of :data:`KEYS` begin: in Thrift's compact form a key has its length in front, and
    behind it a byte for the field and one for the value's length."""
    heads = (_head(key) + bytes([len(_BLANK)]) for key in KEYS)
    return [at + len(head) for head in heads if (at := footer.rfind(head)) >= 0]


def _head(key: bytes) -> bytes:
    """A key, and the byte for the field of its value."""
    return _sized(key) + bytes([0x18])


def _sized(text: bytes) -> bytes:
    """A text as Thrift's compact form has it: its length in groups of seven bits, the lowest first."""
    length, size = len(text), bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(size) + bytes([length]) + text


def _blocks(file: Any, count: int) -> Iterator[bytes]:
    while count > 0 and (block := file.read(min(_BLOCK, count))):
        count -= len(block)
        yield block
