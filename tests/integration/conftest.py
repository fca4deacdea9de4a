"""A spec that goes through every step in seconds, and processes that run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SPEC = """
name: wine
data:
  source: sklearn:wine
  split: {by: hash, val: 0.2, test: 0.3}
  views: {num: 2, augment: [{name: noise, std: 0.02}]}
teacher:
  model: {name: mlp, hidden: [32]}
  train: {epochs: 12, batch_size: 16, lr: 0.01}
  floor: 0.5
student: {name: mlp, hidden: [8]}
train: {epochs: 6, batch_size: 16, lr: 0.02}
sweep:
  trials: 5
  in_flight: 2
  space:
    train.lr: {loguniform: [0.005, 0.05]}
    objective.soft_targets.temperature: {uniform: [1, 8]}
gates:
  min_examples: 30
  checks: [accuracy >= 0.5, accuracy >= teacher - 0.4, size_bytes <= 100000]
"""

RUN = """
import sys
from distill_platform import load_spec, run
{before}
run(load_spec(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture(scope="session")
def spec_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "wine.yaml"
    path.write_text(SPEC)
    return path


def start(spec: Path, workspace: str, before: str = "") -> subprocess.Popen[str]:
    """A process that runs the spec; `before` is code that it executes first, such as one that plants a kill."""
    command = [sys.executable, "-c", RUN.format(before=before), str(spec), workspace]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy())


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a process that has to end well."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def expect_kill(process: subprocess.Popen[str]) -> None:
    """Wait for a process that has to die by SIGKILL."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, errors
