"""No entry of the ledger ever changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_platform.errors import Corrupt
from distill_platform.storage import LocalStorage
from distill_platform.sweep.ledger import Ledger


def test_the_first_entry_counts(tmp_path: Path) -> None:
    ledger = Ledger(LocalStorage(tmp_path))
    assert ledger.add_member(0, {"train.lr": 0.1}) == {"train.lr": 0.1}
    assert ledger.add_member(0, {"train.lr": 0.2}) == {"train.lr": 0.1}
    assert ledger.end(0, {"status": "finished", "score": 0.9})["score"] == 0.9
    assert ledger.end(0, {"status": "stopped", "score": 0.1})["status"] == "finished"
    ledger.report(0, 2, 0.5)
    ledger.report(0, 2, 0.6)
    assert ledger.state().rungs == {2: {0: 0.5}}


def test_the_state_is_read_from_storage_alone(tmp_path: Path) -> None:
    ledger = Ledger(LocalStorage(tmp_path))
    for number in range(3):
        ledger.add_member(number, {"n": number})
    ledger.end(1, {"status": "failed", "score": None})
    state = Ledger(LocalStorage(tmp_path)).state()
    assert state.members == {0: {"n": 0}, 1: {"n": 1}, 2: {"n": 2}}
    assert state.unfinished == [0, 2]
    assert ledger.result(2) is None


def test_a_damaged_entry_is_refused_with_advice(tmp_path: Path) -> None:
    ledger = Ledger(LocalStorage(tmp_path))
    ledger.add_member(0, {})
    (tmp_path / "members" / "000000.json").write_text("{")
    with pytest.raises(Corrupt, match="is not JSON .*; delete it to train that member again"):
        ledger.state()
