"""The folder on this machine's own disk for what can be made again: fetched files and memory maps.

Everything in it is named by the sha256 of what it was made from, so processes share it, nothing in it goes stale, and
deleting it costs time alone.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def scratch_dir() -> Path:
    """`$DISTILL_SCRATCH`, else `~/.cache/distill-platform`."""
    return Path(os.environ.get("DISTILL_SCRATCH", "~/.cache/distill-platform")).expanduser()


def make_once(name: str, make: Callable[[Path], None]) -> Path:
    """The file or folder `name` in scratch, made by `make(temporary path)` if it is not there.

    Of many processes one makes it while the others wait; it appears by a rename, so it is whole or absent.
    """
    final = scratch_dir() / name
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{final}.lock"):
        if not final.exists():
            temporary = final.with_name(f".tmp-{uuid.uuid4().hex}")
            try:
                make(temporary)
                temporary.rename(final)
            finally:
                _remove(temporary)
    return final


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
