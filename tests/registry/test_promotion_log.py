from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_platform.errors import Corrupt, DistillError, FormatError, PromotionRefused, RegistryError
from distill_platform.registry import log
from distill_platform.storage import LocalStorage, S3Storage, Storage, open_storage

MODEL = "digits"
A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


@pytest.fixture
def workspace(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "workspace"))


def passing(digest: str, champion: str | None) -> dict[str, Any]:
    return {"passed": True, "student_digest": digest, "champion_digest": champion, "checks": [{"lower": 0.91}]}


def promote(storage: Storage, digest: str, **changes: Any) -> log.Entry:
    """Promote as a run does: judged against the champion that the log names for this digest."""
    against = log.compared_champion(storage, MODEL, digest)
    verdict = passing(digest, against.digest if against else None)
    version = "abcd".index(digest[0]) + 1
    return log.promote(storage, MODEL, version=version, digest=digest, verdict={**verdict, **changes}, by="ann")


def rollback(storage: Storage) -> log.Entry:
    return log.rollback(storage, MODEL, by="bob", reason="slow on old phones")


def digest_of(entry: log.Entry | None) -> str | None:
    return entry.digest if entry else None


# --- promotion ---


def test_a_model_without_a_log_has_no_champion(workspace: Storage) -> None:
    assert log.history(workspace, MODEL) == []
    assert log.champion(workspace, MODEL) is None
    assert log.compared_champion(workspace, MODEL, A) is None


def test_promotions_are_numbered_and_name_what_they_replaced(workspace: Storage) -> None:
    promote(workspace, A)
    promote(workspace, B)
    first, second = log.history(workspace, MODEL)
    assert (first.number, first.version, first.digest, first.previous_digest) == (1, 1, A, None)
    assert (second.number, second.digest, second.previous_version, second.previous_digest) == (2, B, 1, A)
    assert second.by == "ann"
    assert second.verdict_digest != first.verdict_digest
    assert log.champion(workspace, MODEL) == second
    assert workspace.list("registry") == ["registry/digits/000001.json", "registry/digits/000002.json"]


def test_promoting_the_champion_again_writes_nothing(workspace: Storage) -> None:
    promote(workspace, A)
    entry = promote(workspace, B)
    assert promote(workspace, B) == entry
    assert len(log.history(workspace, MODEL)) == 2


def test_a_rerun_is_judged_against_the_champion_that_it_replaced(workspace: Storage) -> None:
    promote(workspace, A)
    promote(workspace, B)
    assert digest_of(log.compared_champion(workspace, MODEL, B)) == A
    assert digest_of(log.compared_champion(workspace, MODEL, A)) == B
    assert digest_of(log.compared_champion(workspace, MODEL, C)) == B
    rollback(workspace)
    assert log.compared_champion(workspace, MODEL, A) is None, "A's own promotion replaced nothing"
    assert digest_of(log.compared_champion(workspace, MODEL, B)) == A


@pytest.mark.parametrize("passed", [False, None, "true", 1])
def test_a_verdict_that_did_not_pass_is_refused(workspace: Storage, passed: object) -> None:
    with pytest.raises(PromotionRefused, match=f"digits: the verdict on {A[:12]} is not a pass; read its checks"):
        promote(workspace, A, passed=passed)
    assert log.history(workspace, MODEL) == []


def test_a_verdict_on_another_artifact_is_refused(workspace: Storage) -> None:
    with pytest.raises(PromotionRefused, match=f"judged {B[:12]}, the candidate is {A[:12]}; run evaluate and gate"):
        promote(workspace, A, student_digest=B)


def test_a_verdict_that_names_no_champion_is_refused(workspace: Storage) -> None:
    verdict = {"passed": True, "student_digest": A}
    with pytest.raises(PromotionRefused, match="says nothing of champion_digest; run the gate again"):
        log.promote(workspace, MODEL, version=1, digest=A, verdict=verdict, by="ann")


def test_a_stale_verdict_is_refused(workspace: Storage) -> None:
    promote(workspace, A)
    promote(workspace, B)
    wanted = rf"stale verdict: it compares with champion {A[:12]}, the champion now is version 2 \({B[:12]}\), by ann"
    with pytest.raises(PromotionRefused, match=wanted):
        promote(workspace, C, champion_digest=A)
    with pytest.raises(PromotionRefused, match="compares with champion none"):
        promote(workspace, C, champion_digest=None)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "a:b", "-x", "é", "x" * 101])
def test_a_name_that_no_model_can_have_is_refused(workspace: Storage, name: str) -> None:
    with pytest.raises(RegistryError, match="is no model name; wanted 1 to 100 letters, digits"):
        log.history(workspace, name)


def test_the_log_wants_to_know_who_and_why(workspace: Storage) -> None:
    with pytest.raises(RegistryError, match="'by' is empty"):
        log.promote(workspace, MODEL, version=1, digest=A, verdict=passing(A, None), by=" ")
    promote(workspace, A)
    with pytest.raises(RegistryError, match="'reason' is empty; the log keeps who decided, and why"):
        log.rollback(workspace, MODEL, by="bob", reason="")


# --- rollback and approval ---


def test_rollbacks_go_further_back_each_time(workspace: Storage) -> None:
    for digest in (A, B, C):
        promote(workspace, digest)
    assert (rollback(workspace).digest, rollback(workspace).digest) == (B, A)
    entry = log.history(workspace, MODEL)[-1]
    assert (entry.action, entry.version, entry.previous_digest, entry.reason) == (
        "rollback",
        1,
        B,
        "slow on old phones",
    )
    with pytest.raises(PromotionRefused, match=rf"no champion to go back to: the champion is version 1 \({A[:12]}\)"):
        rollback(workspace)
    assert digest_of(log.champion(workspace, MODEL)) == A


def test_rollback_passes_over_versions_that_were_rolled_back(workspace: Storage) -> None:
    promote(workspace, A)
    promote(workspace, B)
    assert rollback(workspace).digest == A
    promote(workspace, C)
    assert rollback(workspace).digest == A, "B stood between in time, and was rolled back"


def test_rollback_does_not_return_to_an_earlier_reign_of_a_bad_version(workspace: Storage) -> None:
    for digest in (A, B, A):
        promote(workspace, digest)
    assert rollback(workspace).digest == B
    with pytest.raises(PromotionRefused, match="no champion to go back to"):
        rollback(workspace)


def test_there_is_nothing_to_roll_back_before_the_first_promotion(workspace: Storage) -> None:
    with pytest.raises(PromotionRefused, match="no champion to go back to: the champion is none"):
        rollback(workspace)


def test_a_rolled_back_version_stays_out_until_it_is_approved(workspace: Storage) -> None:
    promote(workspace, A)
    promote(workspace, B)
    rollback(workspace)
    wanted = (
        rf"version 2 \({B[:12]}\) was rolled back by bob at .* \(slow on old phones\); "
        r"if it is to return, record why with `distill models approve digits 2 --reason …`"
    )
    with pytest.raises(PromotionRefused, match=wanted):
        promote(workspace, B)
    approval = log.approve(workspace, MODEL, B, by="cat", reason="the phones were replaced")
    assert (approval.version, approval.digest) == (2, B)
    assert digest_of(log.champion(workspace, MODEL)) == A, "an approval alone moves nothing"
    entry = promote(workspace, B)
    assert (entry.digest, entry.approval) == (B, "000004")
    promote(workspace, C)
    assert promote(workspace, B).approval is None, "this time it needed none"


def test_an_approval_serves_one_return_only(workspace: Storage) -> None:
    promote(workspace, A)
    promote(workspace, B)
    rollback(workspace)
    log.approve(workspace, MODEL, B, by="cat", reason="fixed")
    promote(workspace, B)
    rollback(workspace)
    with pytest.raises(PromotionRefused, match="was rolled back by bob"):
        promote(workspace, B)
    assert log.approve(workspace, MODEL, B, by="cat", reason="fixed for good").number == 7
    assert promote(workspace, B).approval == "000007"


def test_an_approval_ends_with_the_next_rollback_even_unused(workspace: Storage) -> None:
    for digest in (D, B, A, B):
        promote(workspace, digest)
    rollback(workspace)
    log.approve(workspace, MODEL, B, by="cat", reason="fixed")
    assert rollback(workspace).digest == B, "approved, so a rollback may return to its earlier reign"
    assert rollback(workspace).digest == D
    assert log.approve(workspace, MODEL, B, by="cat", reason="fixed for good").number == 9
    assert promote(workspace, B).approval == "000009"


def test_approving_twice_writes_once_and_approving_anything_else_is_refused(workspace: Storage) -> None:
    promote(workspace, A)
    promote(workspace, B)
    with pytest.raises(PromotionRefused, match=f"{B[:12]} was not rolled back, so there is nothing to approve"):
        log.approve(workspace, MODEL, B, by="cat", reason="fixed")
    rollback(workspace)
    first = log.approve(workspace, MODEL, B, by="cat", reason="fixed")
    assert log.approve(workspace, MODEL, B, by="dan", reason="fixed too") == first


STEPS = ["promote", "promote", "rollback", "rollback", "approve"]  # promotions and rollbacks twice as often


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=20),
    data=st.data(),
)
def test_no_sequence_makes_a_rolled_back_version_champion(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], data: st.DataObject
) -> None:
    storage = open_storage(str(tmp_path_factory.mktemp("log")))
    out: set[str] = set()
    for step in steps:
        digest, before = data.draw(st.sampled_from([A, B, C, D])), log.champion(storage, MODEL)
        try:
            if step == "promote":
                promote(storage, digest)
            elif step == "approve":
                approval = log.approve(storage, MODEL, digest, by="cat", reason="fixed")
                later = log.history(storage, MODEL)[approval.number :]
                assert digest not in [entry.previous_digest for entry in later if entry.action == "rollback"]
                out.discard(digest)
            else:
                rollback(storage)
                assert before is not None
                out.add(before.digest)
        except PromotionRefused:
            assert log.champion(storage, MODEL) == before
        now = log.champion(storage, MODEL)
        assert digest_of(now) not in out
        if now is not None:
            assert digest_of(log.compared_champion(storage, MODEL, now.digest)) != now.digest


# --- what is stored ---


def stored(workspace: Storage, number: int) -> dict[str, Any]:
    return dict(json.loads(workspace.read(f"registry/digits/{number:06d}.json")))


def test_a_gap_is_refused_by_name(workspace: Storage) -> None:
    for digest in (A, B, C):
        promote(workspace, digest)
    workspace.delete("registry/digits/000002.json")
    with pytest.raises(Corrupt, match=r"registry/digits/000002\.json is missing, and .*000003\.json is there"):
        log.champion(workspace, MODEL)


@pytest.mark.parametrize("number", [1, 2])
def test_every_flipped_byte_of_an_entry_is_refused(workspace: Storage, number: int) -> None:
    promote(workspace, A)
    promote(workspace, B)
    name = f"registry/digits/{number:06d}.json"
    whole = workspace.read(name)
    for position in range(0, len(whole), 7):
        workspace.write(name, whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        if json_equal(workspace.read(name), whole):
            continue  # a flipped space between two fields says nothing else
        with pytest.raises((Corrupt, FormatError), match=f"{number:06d}.json"):
            log.history(workspace, MODEL)


def json_equal(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def test_half_an_entry_and_an_edited_one_are_refused_by_name(workspace: Storage) -> None:
    promote(workspace, A)
    name = "registry/digits/000001.json"
    whole = workspace.read(name)
    workspace.write(name, whole[:50])
    with pytest.raises(Corrupt, match=r"000001\.json is no entry of a promotion log"):
        log.history(workspace, MODEL)
    workspace.write(name, whole.replace(b'"ann"', b'"eve"'))
    with pytest.raises(Corrupt, match=r"000001\.json is not as it was written: its sha256 does not fit"):
        log.history(workspace, MODEL)


def test_an_entry_of_another_format_is_left_to_its_release(workspace: Storage) -> None:
    promote(workspace, A)
    workspace.write("registry/digits/000001.json", json.dumps({**stored(workspace, 1), "format": 2}).encode())
    with pytest.raises(FormatError, match=r"000001\.json has format 2, this release reads 1"):
        log.history(workspace, MODEL)


# --- at the same time ---


def outcome(act: Callable[[], log.Entry]) -> str:
    try:
        return act().digest
    except DistillError as error:
        return f"{type(error).__name__}: {error}"


class MeetAtCreate:
    """A storage whose first `create` waits until the other promotion is there too."""

    def __init__(self, inner: Storage, barrier: threading.Barrier) -> None:
        self._inner, self._barrier, self._met = inner, barrier, False

    def create(self, name: str, data: bytes) -> bool:
        if not self._met:
            self._met = True
            self._barrier.wait(timeout=30)
        return self._inner.create(name, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def race(storage: Storage, *acts: Callable[[Storage], log.Entry]) -> list[str]:
    """What becomes of acts that all read the log before any of them writes to it."""
    barrier, outcomes = threading.Barrier(len(acts)), [""] * len(acts)

    def run(index: int) -> None:
        outcomes[index] = outcome(lambda: acts[index](MeetAtCreate(storage, barrier)))  # type: ignore[arg-type]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def assert_one_winner(storage: Storage, outcomes: list[str]) -> None:
    winners = [said for said in outcomes if len(said) == 64]
    losers = [said for said in outcomes if said not in winners]
    assert len(winners) == 1, outcomes
    assert losers[0].startswith(f"PromotionRefused: digits: stale verdict: it compares with champion {A[:12]}"), losers
    assert winners[0][:12] in losers[0]
    assert [entry.digest for entry in log.history(storage, MODEL)] == [A, winners[0]]


@pytest.mark.parametrize("attempt", range(20))
def test_of_two_promotions_at_once_one_wins_and_the_other_is_stale(workspace: Storage, attempt: int) -> None:
    promote(workspace, A)
    assert_one_winner(workspace, race(workspace, lambda s: promote(s, B), lambda s: promote(s, C)))


def test_two_runs_that_promote_the_same_student_both_succeed(workspace: Storage) -> None:
    promote(workspace, A)
    assert race(workspace, lambda s: promote(s, B), lambda s: promote(s, B)) == [B, B]
    assert len(log.history(workspace, MODEL)) == 2


def test_two_people_who_roll_back_the_same_version_go_back_once(workspace: Storage) -> None:
    for digest in (A, B, C):
        promote(workspace, digest)
    outcomes = sorted(race(workspace, rollback, rollback))
    assert outcomes[1] == B
    assert f"the champion changed from version 3 ({C[:12]}) to version 2 ({B[:12]}) meanwhile" in outcomes[0]
    assert digest_of(log.champion(workspace, MODEL)) == B


def _promote_when_told(uri: str, digest: str, ready: Any, told: Any, answers: Any) -> None:
    storage = open_storage(uri)
    verdict = passing(digest, A)
    ready.release()
    told.wait(60)
    answers.put(
        outcome(
            lambda: log.promote(storage, MODEL, version=2, digest=digest, verdict=verdict, by=f"process {digest[0]}")
        )
    )


def test_of_processes_that_promote_at_once_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for attempt in range(3):
        storage = open_storage(str(tmp_path / str(attempt)))
        promote(storage, A)
        ready, told, answers = context.Semaphore(0), context.Event(), context.Queue()
        processes = [
            context.Process(target=_promote_when_told, args=(storage.uri, digest, ready, told, answers))
            for digest in (B, C)
        ]
        for process in processes:
            process.start()
        for _ in processes:
            assert ready.acquire(timeout=60)
        told.set()
        outcomes = [answers.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
        assert_one_winner(storage, outcomes)


# --- killed ---


class Killed(BaseException):
    """As SIGKILL: nothing in the code under test catches it."""


class KilledAt:
    """A storage that dies at its k-th call, before or after the call had its effect."""

    def __init__(self, inner: Storage, k: int, after: bool) -> None:
        self._inner, self._left, self._after = inner, k, after
        self.uri = inner.uri

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._inner, name)

        def call(*args: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            result = real(*args)
            if self._left == 0:
                raise Killed
            return result

        return call


@pytest.mark.parametrize("after", [False, True])
def test_a_promotion_killed_at_any_call_leaves_the_old_or_the_new_champion(tmp_path: Path, after: bool) -> None:
    champions = []
    for k in range(1, 50):
        storage = open_storage(str(tmp_path / str(k)))
        promote(storage, A)
        try:
            promote(KilledAt(storage, k, after), B)  # type: ignore[arg-type]
            break
        except Killed:
            champions.append(digest_of(log.champion(storage, MODEL)))
        assert promote(storage, B).digest == B
        assert [entry.digest for entry in log.history(storage, MODEL)] == [A, B]
    assert len(champions) >= 5, "two listings, two reads and a create at least"
    assert champions[:-1] == [A] * (len(champions) - 1)
    assert champions[-1] == (B if after else A), "the last call decides, and nothing before it"


# --- on S3 ---


def test_the_log_decides_alike_on_s3(s3_uri: str) -> None:
    storage = open_storage(s3_uri)
    assert isinstance(storage, S3Storage)
    promote(storage, A)
    promote(storage, B)
    assert rollback(storage).digest == A
    with pytest.raises(PromotionRefused, match="was rolled back by bob"):
        promote(storage, B)
    log.approve(storage, MODEL, B, by="cat", reason="fixed")
    promote(storage, B)
    actions = [entry.action for entry in log.history(storage, MODEL)]
    assert actions == ["promote", "promote", "rollback", "approve", "promote"]
    assert log.history(storage, "another") == []


def test_of_two_promotions_at_once_on_s3_one_wins(s3_uri: str) -> None:
    storage = open_storage(s3_uri)
    promote(storage, A)
    assert_one_winner(storage, race(storage, lambda s: promote(s, B), lambda s: promote(s, C)))


def test_a_create_whose_answer_was_lost_still_counts_as_won(tmp_path: Path) -> None:
    class Retried(LocalStorage):
        """As a PUT that arrived, and was sent again because its answer did not."""

        def create(self, name: str, data: bytes) -> bool:
            super().create(name, data)
            return super().create(name, data)

    storage = Retried(tmp_path)
    assert promote(storage, A).digest == A
    assert len(log.history(storage, MODEL)) == 1
