"""The promotion log: the pointer that decides which version of a model is the champion.

    <workspace>/registry/<model>/000001.json    one entry per decision, created only if absent, never changed

Entry n+1 is written by whoever creates it, and that one write is the whole decision: of two promotions at the same
time one exists, and the other reads the log again and finds that its verdict was about a champion that is no more.

The champion is found by reading the log from its first entry: a promotion makes a version champion on top of those
before it, a rollback returns to the last one below that was not itself rolled back, an approval lets a rolled-back one
be promoted again. So the newest promotion or rollback names the champion, and nothing else does.

MLflow's alias `champion` is not the pointer because setting an alias has no compare-and-set: two promotions would
both succeed, and which one stays is chance; nor does it keep who moved it, when, why, and on what evidence. The alias
is a view of this log, rebuilt by `ModelRegistry.sync`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

from distill_platform.errors import Corrupt, FormatError, PromotionRefused, RegistryError
from distill_platform.fingerprint import fingerprint
from distill_platform.storage import Storage

LOG_FORMAT = 1
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENTRY_NAME = re.compile(r"(\d{6,})\.json")


@dataclass(frozen=True)
class Entry:
    """One decision. `version` and `digest` are the champion after it; of an approval, the version that is approved.

    `previous_*` are the champion before it. `approval` is the entry that let a rolled-back version return.
    """

    number: int
    action: Literal["promote", "rollback", "approve"]
    version: int
    digest: str
    previous_version: int | None
    previous_digest: str | None
    by: str
    at: str
    reason: str
    approval: str | None = None
    verdict_digest: str | None = None


@dataclass
class _Standing:
    """What the entries add up to."""

    promotions: list[Entry] = field(default_factory=list)
    """Promotions in force, oldest first; the last one is the champion's."""
    rolled_back: dict[str, Entry] = field(default_factory=dict)
    """Digest -> the rollback that took it out, while no approval followed."""
    approvals: dict[str, Entry] = field(default_factory=dict)
    """Digest -> its approval, until it is promoted or rolled back again."""


def history(storage: Storage, model: str) -> list[Entry]:
    """All entries of a model's log in order; empty for a model that was never promoted.

    Raises Corrupt for a gap or an entry that is not as it was written, FormatError for another version's entry, and
    RegistryError for a name that no model can have.
    """
    folder = log_folder(model)
    matches = [_ENTRY_NAME.fullmatch(name.removeprefix(f"{folder}/")) for name in storage.list(folder)]
    numbers = sorted(int(match[1]) for match in matches if match)
    for expected, number in enumerate(numbers, start=1):
        if number != expected:
            raise Corrupt(
                f"{storage.uri}/{_entry_name(model, expected)} is missing, and {_entry_name(model, number)} is there; "
                "entries are never deleted, so restore it from a backup before anything is promoted"
            )
    return [_read(storage, model, number) for number in numbers]


def champion(storage: Storage, model: str) -> Entry | None:
    """The entry that made the present champion, by promotion or by rollback; None before the first promotion."""
    return _last_decision(history(storage, model))


def compared_champion(storage: Storage, model: str, digest: str) -> Entry | None:
    """The champion that a verdict for `digest` is to be judged against; None if there is none to compare with.

    That is the present champion, unless `digest` is the present champion itself: then the one that its promotion
    replaced. So a spec that is run again after its student was promoted names the same evaluation as before, finds it
    done, and does not compare a model with itself.
    """
    entries = history(storage, model)
    promotions = _stand(entries).promotions
    if promotions and promotions[-1].digest == digest:
        return _last_decision(entries[: promotions[-1].number - 1])
    return _last_decision(entries)


def promote(
    storage: Storage, model: str, *, version: int, digest: str, verdict: Mapping[str, Any], by: str, reason: str = ""
) -> Entry:
    """Make `digest`, registered as `version`, the champion. One that is champion already gives the entry that says so.

    `verdict` holds `passed`, `student_digest` and `champion_digest` (None where there was no champion to compare with).
    A promotion that was killed at any point is completed by calling this again.

    Raises PromotionRefused for a verdict that failed, judged another artifact or compared with a champion that has
    changed since, and for a version that was rolled back and not approved again.
    """
    require_passed(model, digest, verdict)
    _require(model, by=by)

    def decide(entries: list[Entry]) -> Entry:
        standing, current = _stand(entries), _last_decision(entries)
        if current is not None and current.digest == digest:
            return current
        if digest in standing.rolled_back:
            raise PromotionRefused(_say_rolled_back(model, standing.rolled_back[digest]))
        if verdict["champion_digest"] != (current.digest if current else None):
            raise PromotionRefused(_say_stale(model, verdict["champion_digest"], current))
        approval = standing.approvals.get(digest)
        return _next(
            entries,
            "promote",
            version,
            digest,
            by=by,
            reason=reason,
            approval=f"{approval.number:06d}" if approval else None,
            verdict_digest=fingerprint(dict(verdict)),
        )

    return _append(storage, model, decide)


def rollback(storage: Storage, model: str, *, by: str, reason: str) -> Entry:
    """Make the champion before the present one champion again; one that was itself rolled back is passed over.

    Raises PromotionRefused if there is none to go back to, and if the champion changed while this was asked for: two
    people who roll back the same version at once go back once.
    """
    _require(model, by=by, reason=reason)
    bad = champion(storage, model)

    def decide(entries: list[Entry]) -> Entry:
        standing, current = _stand(entries), _last_decision(entries)
        if current != bad:
            raise PromotionRefused(
                f"{model}: the champion changed from {_say(bad)} to {_say(current)} meanwhile; "
                "look at `distill models history` and decide again"
            )
        below = [entry for entry in standing.promotions[:-1] if entry.digest not in standing.rolled_back]
        below = [entry for entry in below if current is not None and entry.digest != current.digest]
        if not below:
            raise PromotionRefused(
                f"{model}: no champion to go back to: the champion is {_say(current)}, and none before it stands; "
                "promote another version instead"
            )
        return _next(entries, "rollback", below[-1].version, below[-1].digest, by=by, reason=reason)

    return _append(storage, model, decide)


def approve(storage: Storage, model: str, digest: str, by: str, reason: str) -> Entry:
    """Let a version that was rolled back be promoted again, once; its verdict still has to pass.

    An approval that is there already is given back. Raises PromotionRefused if `digest` is not rolled back.
    """
    _require(model, by=by, reason=reason)

    def decide(entries: list[Entry]) -> Entry:
        standing = _stand(entries)
        if digest in standing.approvals:
            return standing.approvals[digest]
        if digest not in standing.rolled_back:
            raise PromotionRefused(
                f"{model}: {digest[:12]} was not rolled back, so there is nothing to approve; promote it as it is"
            )
        version = standing.rolled_back[digest].previous_version
        assert version is not None  # a rollback always leaves somewhere
        return _next(entries, "approve", version, digest, by=by, reason=reason)

    return _append(storage, model, decide)


def require_passed(model: str, digest: str, verdict: Mapping[str, Any]) -> None:
    """Raises PromotionRefused unless the verdict passed, and is about `digest`."""
    if missing := [key for key in ("passed", "student_digest", "champion_digest") if key not in verdict]:
        raise PromotionRefused(f"{model}: the verdict says nothing of {', '.join(missing)}; run the gate again")
    if verdict["student_digest"] != digest:
        raise PromotionRefused(
            f"{model}: the verdict judged {_short(verdict['student_digest'])}, the candidate is {_short(digest)}; "
            "run evaluate and gate on this very artifact"
        )
    if verdict["passed"] is not True:
        raise PromotionRefused(
            f"{model}: the verdict on {_short(digest)} is not a pass; read its checks in the report, "
            "then improve the student, or change the gates on purpose, and run again"
        )


def log_folder(model: str) -> str:
    """Where a model's log is in the workspace. Raises RegistryError for a name that no model can have."""
    if not _MODEL_NAME.fullmatch(model):
        raise RegistryError(
            f"{model!r} is no model name; wanted 1 to 100 letters, digits, '.', '_' or '-', a letter or digit first"
        )
    return f"registry/{model}"


def _append(storage: Storage, model: str, decide: Callable[[list[Entry]], Entry]) -> Entry:
    """Write the entry that `decide` makes of the log. Whoever loses the race for its number decides anew."""
    while True:
        entries = history(storage, model)
        entry = decide(entries)
        if entry in entries:
            return entry
        # The nonce tells this writer's bytes from those of another with the same words: see Storage.create.
        body = {"format": LOG_FORMAT, **asdict(entry), "nonce": uuid.uuid4().hex}
        data = json.dumps({**body, "sha256": fingerprint(body)}, indent=1).encode()
        if storage.create(_entry_name(model, entry.number), data):
            return entry


def _read(storage: Storage, model: str, number: int) -> Entry:
    name = _entry_name(model, number)
    where = f"{storage.uri}/{name}"
    try:
        body = dict(json.loads(storage.read(name)))
    except (ValueError, TypeError) as error:
        raise Corrupt(f"{where} is no entry of a promotion log ({error}); restore it from a backup") from error
    if body.get("format") != LOG_FORMAT:
        raise FormatError(
            f"{where} has format {body.get('format')!r}, this release reads {LOG_FORMAT}; use the release that wrote it"
        )
    seal = body.pop("sha256", None)
    if seal != fingerprint(body) or body["number"] != number:
        raise Corrupt(f"{where} is not as it was written: its sha256 does not fit; restore it from a backup")
    return Entry(**{slot.name: body[slot.name] for slot in fields(Entry)})


def _stand(entries: list[Entry]) -> _Standing:
    standing = _Standing()
    for entry in entries:
        if entry.action == "promote":
            standing.promotions.append(entry)
            standing.approvals.pop(entry.digest, None)
        elif entry.action == "rollback":
            assert entry.previous_digest is not None
            standing.rolled_back[entry.previous_digest] = entry
            standing.approvals.pop(entry.previous_digest, None)
            while standing.promotions[-1].digest != entry.digest:
                standing.promotions.pop()
        else:
            standing.rolled_back.pop(entry.digest)
            standing.approvals[entry.digest] = entry
    return standing


def _last_decision(entries: list[Entry]) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.action != "approve"), None)


def _next(
    entries: list[Entry],
    action: Literal["promote", "rollback", "approve"],
    version: int,
    digest: str,
    *,
    by: str,
    reason: str,
    approval: str | None = None,
    verdict_digest: str | None = None,
) -> Entry:
    current = _last_decision(entries)
    return Entry(
        number=len(entries) + 1,
        action=action,
        version=version,
        digest=digest,
        previous_version=current.version if current else None,
        previous_digest=current.digest if current else None,
        by=by,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
        approval=approval,
        verdict_digest=verdict_digest,
    )


def _entry_name(model: str, number: int) -> str:
    return f"{log_folder(model)}/{number:06d}.json"


def _require(model: str, **given: str) -> None:
    log_folder(model)
    for name, value in given.items():
        if not value.strip():
            raise RegistryError(f"{model}: {name!r} is empty; the log keeps who decided, and why")


def _say(entry: Entry | None) -> str:
    return f"version {entry.version} ({entry.digest[:12]})" if entry else "none"


def _short(digest: object) -> str:
    return "none" if digest is None else str(digest)[:12]


def _say_stale(model: str, compared: object, current: Entry | None) -> str:
    now = f"{_say(current)}, by {current.by} at {current.at}" if current else "none"
    return (
        f"{model}: stale verdict: it compares with champion {_short(compared)}, the champion now is {now}; "
        "run again to be judged against it"
    )


def _say_rolled_back(model: str, entry: Entry) -> str:
    return (
        f"{model}: version {entry.previous_version} ({_short(entry.previous_digest)}) was rolled back by {entry.by} at "
        f"{entry.at} ({entry.reason}); if it is to return, record why with "
        f"`distill models approve {model} {entry.previous_version} --reason …`, then promote it again"
    )
