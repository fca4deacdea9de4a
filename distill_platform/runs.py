"""What a run did, as files that each step writes once.

<workspace>/runs/<run>/run.json       spec, workspace, process: written at the start
<workspace>/runs/<run>/<step>.json    status (ran | reused), uri, key, digest, seconds; of a step that is done several
                                      times, for each of several teachers, <step>-<which>.json
<workspace>/runs/<run>/<step>.failed.json   the last failure of a step that may be tried again
<workspace>/runs/<run>/<step>.log     what the step logged, so far
<workspace>/runs/<run>/end.json       status (done | failed | stopped), exit code, error
<workspace>/runs/<run>/stop.json      somebody asks it to stop
<workspace>/runs/<run>/report.html    the page for people
"""

from __future__ import annotations

import _thread
import io
import json
import logging
import os
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from distill_platform.artifact import Artifact
from distill_platform.errors import Corrupt, DistillError, InputError, NotFound, Stopped, StorageError
from distill_platform.storage import Storage

STEPS = (
    "prepare",
    "teacher",
    "cache",
    "baseline",
    "sweep",
    "compress",
    "evaluate",
    "gate",
    "register",
    "promote",
)
RUN_FORMAT = 1
STEP_FILES = (".failed.json", ".json", ".log")
"""Endings of what a step leaves in a run's folder; a teacher's name before them may have dots of its own."""
WATCH_EVERY_S = 1.0

log = logging.getLogger("distill_platform")


def new_run_id(name: str) -> str:
    """`<name>-<UTC time>-<four hex digits>`."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class Run:
    """A run under way: records steps, keeps their logs, and notices a request to stop."""

    def __init__(self, workspace: Storage, run_id: str, spec: dict[str, Any]) -> None:
        self.id = run_id
        self.storage = workspace.child(f"runs/{run_id}")
        self.storage.create(
            "run.json",
            _json({"format": RUN_FORMAT, "run": run_id, "spec": spec, "workspace": workspace.uri, **_process()}),
        )
        self.steps: dict[str, dict[str, Any]] = {}
        self.log_buffer = io.StringIO()
        self.stopping = threading.Event()
        self._over = threading.Event()
        self._step: str | None = None
        self._watcher = threading.Thread(target=self._watch, name="run watcher", daemon=True)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Log to storage and listen for a stop request inside; write how the run ended after."""
        handler = logging.StreamHandler(self.log_buffer)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        level = log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        self._watcher.start()
        end: dict[str, Any] = {"status": "done", "exit_code": 0, "error": None}
        try:
            yield
        except KeyboardInterrupt:
            end = {"status": "stopped", "exit_code": 130, "error": "interrupted"}
            if self.stopping.is_set():
                end = {"status": "stopped", "exit_code": Stopped.exit_code, "error": "stop was requested"}
                raise Stopped(f"run {self.id}: stopped on request; run the same spec again to continue") from None
            raise
        except DistillError as error:
            status = "stopped" if isinstance(error, Stopped) else "failed"
            end = {"status": status, "exit_code": error.exit_code, "error": str(error)}
            raise
        except BaseException as error:
            end = {"status": "failed", "exit_code": 1, "error": f"{type(error).__name__}: {error}"}
            raise
        finally:
            self._over.set()
            self._watcher.join()
            log.removeHandler(handler)
            log.setLevel(level)
            self.storage.create("end.json", _json({**end, "at": _now()}))

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[Artifact, bool], None]]:
        """Record a step; call what it yields with its artifact, and whether it had to be made."""
        self._step = name
        started = time.perf_counter()
        log.info("step %s: start", name)

        def record(artifact: Artifact, ran: bool) -> None:
            status = "ran" if ran else "reused"
            seconds = round(time.perf_counter() - started, 3)
            log.info("step %s: %s in %.1f s, %s", name, status, seconds, artifact.uri)
            entry = {"step": name, "status": status, "seconds": seconds, "uri": artifact.uri, "at": _now()}
            self.steps[name] = {**entry, "key": artifact.key, "digest": artifact.digest}
            self.storage.create(f"{name}.json", _json(self.steps[name]))

        try:
            yield record
        except BaseException as error:
            log.error("step %s: %s", name, "".join(traceback.format_exception(error)))
            seconds = round(time.perf_counter() - started, 3)
            failure = {"step": name, "status": "failed", "seconds": seconds, "at": _now()}
            self.storage.write(f"{name}.failed.json", _json({**failure, "error": f"{type(error).__name__}: {error}"}))
            raise
        finally:
            self._flush_log()
            self._step = None
            self.log_buffer.seek(0)
            self.log_buffer.truncate()

    def should_stop(self) -> bool:
        """Whether somebody asked this run to stop."""
        return self.stopping.is_set()

    def _flush_log(self) -> None:
        if self._step is not None:
            self.storage.write(f"{self._step}.log", self.log_buffer.getvalue().encode())

    def _watch(self) -> None:
        while not self._over.wait(WATCH_EVERY_S):
            with suppress(StorageError):  # a log line or a stop request may come a second later
                self._flush_log()
                if not self.stopping.is_set() and self.storage.exists("stop.json"):
                    log.warning("stop requested")
                    self.stopping.set()
                    _thread.interrupt_main()


@dataclass(frozen=True)
class RunStatus:
    """What is known of a run. status: running | done | failed | stopped | lost (its process is gone)."""

    id: str
    status: str
    spec: dict[str, Any]
    steps: dict[str, dict[str, Any]]
    end: dict[str, Any] | None
    started_at: str


def list_runs(workspace: Storage) -> list[str]:
    """Ids of all runs, oldest first."""
    names = [name for name in workspace.list("runs") if name.endswith("/run.json")]
    runs = [name.split("/")[1] for name in names]
    return sorted(runs, key=lambda run: (run.rsplit("-", 3)[-3:], run))


def read_run(workspace: Storage, run_id: str | None = None) -> RunStatus:
    """A run's status; the newest without an id. Raises InputError if there is none."""
    known = list_runs(workspace)
    if run_id is None and known:
        run_id = known[-1]
    if run_id not in known:
        wanted = f"no run {run_id}; newest: {', '.join(known[-5:])}" if known else "no runs yet"
        raise InputError(f"{workspace.uri} has {wanted}")
    storage = workspace.child(f"runs/{run_id}")
    start = _read(storage, "run.json") or {}
    found = {
        step: _read(storage, f"{step}.json") or _read(storage, f"{step}.failed.json") for step in _steps_of(storage)
    }
    end = _read(storage, "end.json")
    status = end["status"] if end else ("running" if _may_be_alive(start) else "lost")
    steps = {step: entry for step, entry in found.items() if entry}
    return RunStatus(run_id, status, start.get("spec", {}), steps, end, start.get("at", ""))


def read_runs(workspace: Storage, newest: int = 20) -> list[RunStatus]:
    """The newest runs, oldest first. One whose files are damaged has the status "unreadable"."""
    found = []
    for run_id in list_runs(workspace)[-newest:]:
        try:
            found.append(read_run(workspace, run_id))
        except Corrupt as error:
            found.append(RunStatus(run_id, "unreadable", {}, {}, {"error": str(error)}, ""))
    return found


def request_stop(workspace: Storage, run_id: str | None = None) -> str:
    """Ask a run to stop after what it is doing this second; gives its id. Raises InputError if it is not running."""
    run = read_run(workspace, run_id)
    if run.end is not None:
        raise InputError(f"run {run.id} is {run.status} already")
    workspace.child(f"runs/{run.id}").create("stop.json", _json({"by": _process(), "at": _now()}))
    return run.id


def read_log(workspace: Storage, run_id: str | None = None, step: str | None = None) -> str:
    """The log of a run's step, or of all its steps. Raises InputError if there is no such run or step."""
    run = read_run(workspace, run_id)
    storage = workspace.child(f"runs/{run.id}")
    known = _steps_of(storage)
    if step is not None and step not in (*STEPS, *known):
        raise InputError(f"no step is called {step!r}; steps are {', '.join(known or STEPS)}")
    parts = []
    for name in (step,) if step else known:
        with suppress(NotFound):
            parts.append(storage.read(f"{name}.log").decode())
    return "".join(parts)


def _steps_of(run: Storage) -> list[str]:
    """The steps that a run has a file of, in the order of STEPS; those done several times in that of their names."""
    endings = {name: next((each for each in STEP_FILES if name.endswith(each)), "") for name in run.list()}
    names = {name.removesuffix(ending) for name, ending in endings.items()}
    return sorted((name for name in names if name.split("-")[0] in STEPS), key=_place)


def _place(step: str) -> tuple[int, str]:
    return STEPS.index(step.split("-")[0]), step


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "at": _now()}


def _may_be_alive(start: dict[str, Any]) -> bool:
    import psutil

    return start.get("host") != socket.gethostname() or psutil.pid_exists(int(start.get("pid", 0)))


def _read(storage: Storage, name: str) -> dict[str, Any] | None:
    try:
        found = json.loads(storage.read(name))
    except NotFound:
        return None
    except ValueError as error:
        raise Corrupt(
            f"{storage.uri}/{name} is not JSON ({error}); delete the run's folder: it is a record only"
        ) from error
    return cast("dict[str, Any]", found)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
