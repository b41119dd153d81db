"""Files that exist whole or not at all."""

from __future__ import annotations

import uuid
from pathlib import Path

from analysis.errors import TableError


def write_whole(path: Path, content: bytes) -> Path:
    """Write ``path`` under another name and rename it; its folder is made where it is missing.

    Raises:
        TableError: the path is a folder, or cannot be written to.
    """
    if path.is_dir():
        raise TableError(f"{path}: is a folder; name a file")
    # Unique per writer, so that two runs cannot write into the same temporary file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise TableError(f"{path}: cannot be written ({error.strerror or error}); name another file") from error
    finally:
        # A parent that is a file has no temporary file in it either.
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return path
