"""What a run leaves behind is read back, whatever its steps are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_platform.artifact import produce
from distill_platform.runs import Run, read_log, read_run
from distill_platform.storage import LocalStorage


def test_a_step_done_for_several_teachers_is_read_under_each_name(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = Run(storage, "r-20260101-000000-abcd", {})
    made, _ = produce(storage, "teacher", 1, {}, {}, lambda draft: draft.write("a", b"a"))
    with run.watched():
        with run.step("teacher-v1.2") as record:
            record(made, True)
        with pytest.raises(ValueError, match="no luck"), run.step("cache-v1.2"):
            raise ValueError("no luck")
    found = read_run(storage).steps
    assert {name: step["status"] for name, step in found.items()} == {"teacher-v1.2": "ran", "cache-v1.2": "failed"}
    assert "no luck" in read_log(storage, step="cache-v1.2")
