"""What cannot be hashed the same way everywhere is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_platform.fingerprint import canonical_json, fingerprint, sha256_bytes, sha256_file

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))


def test_the_form_is_fixed() -> None:
    """A change of this value renames every artifact there is."""
    assert canonical_json({"b": [1, 1.0, None], "a": "é"}) == '{"a":"é","b":[1,1.0,null]}'.encode()
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {1, 2}}, r"\$\.a is a set, which has no stable form"),
        ([float("nan")], r"\$\[0\] is nan: only finite numbers"),
        ({1: 2}, r"\$ has the key 1 of type int"),
        ({"f": print}, r"\$\.f is a builtin_function_or_method"),
    ],
)
def test_unstable_values_are_refused_by_place(value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fingerprint(value)


def test_a_file_hashes_as_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 1_000_000)
    assert sha256_file(tmp_path / "f") == sha256_bytes(b"abc" * 1_000_000)
