"""Credentials have no place in a spec: it is stored beside every model, and shown in every report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from distill_platform.spec.faults import Fault, Path

_KEY = re.compile(r"(^|_)(password|passwd|secret|token|credentials?|api_?key|access_?key|secret_?key)$", re.IGNORECASE)
_IN_URI = re.compile(r"://[^/\s@]+@|[?&](token|signature|x-amz-[a-z]+|api_?key|password)=", re.IGNORECASE)
_AWS_KEY_ID = re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")
_ADVICE = "a spec is stored and shown; give it by environment (AWS_PROFILE, MLFLOW_TRACKING_TOKEN, …)"


def credential_faults(value: Any, path: Path = ()) -> Iterator[Fault]:
    """A fault for each value that looks like a credential. No message repeats the value."""
    if isinstance(value, dict):
        for key, below in value.items():
            if isinstance(below, str) and _KEY.search(key.replace("-", "_")):
                yield Fault((*path, key), f"looks like a credential; {_ADVICE}")
            else:
                yield from credential_faults(below, (*path, key))
    elif isinstance(value, list):
        for position, below in enumerate(value):
            yield from credential_faults(below, (*path, position))
    elif isinstance(value, str) and (_IN_URI.search(value) or _AWS_KEY_ID.search(value)):
        yield Fault(path, f"holds a credential; {_ADVICE}")
