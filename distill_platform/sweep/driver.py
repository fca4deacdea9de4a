"""Ray Tune executes members; the ledger decides what they are, which go on, and which are over.

Tune's own search, schedulers and restore are not used: its restore reruns finished trials and unpickles. Here a killed
driver reads the ledger, hands Tune the members that have not ended, and asks for new ones until there are enough.

Member n is asked for once members up to n - in_flight have ended; it learns from those and is compared with those, and
with no others. So settings, halving and winner are a function of the spec, whichever member happens to end first and
however often the driver is killed.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from distill_platform.artifact import Artifact, Draft
from distill_platform.data.views import Views
from distill_platform.errors import Stopped, SweepFailed
from distill_platform.progress import Advance, track
from distill_platform.sweep.halving import keeps, rungs
from distill_platform.sweep.ledger import LedgerState
from distill_platform.sweep.results import write_results
from distill_platform.sweep.search import Search
from distill_platform.sweep.space import Space
from distill_platform.sweep.trial import MemberTrainable, TrialJob, lost_result, stopped_result
from distill_platform.train.start import RANDOM, Start
from distill_platform.train.teaching import Teaching

log = logging.getLogger(__name__)

MAX_FAILURES = 3
"""How often a member whose process died is started again."""


@dataclass(frozen=True)
class SweepPlan:
    """What is searched, how, and for how long; all plain and resolved."""

    name: str
    trials: int
    in_flight: int
    search: str
    scheduler: str
    grace_epochs: int
    reduction: int
    metric: str
    space: Space
    base: Mapping[str, Any]
    seed: int

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs after which members are compared; none without halving."""
        if self.scheduler == "none":
            return ()
        return tuple(rungs(self.base["train"]["epochs"], self.grace_epochs, self.reduction))


@dataclass(frozen=True)
class Slots:
    """What one trial takes, and how many run at once. Says nothing about results."""

    concurrent: int
    num_cpus: float = 1
    num_gpus: float = 0


def run_sweep(
    draft: Draft,
    plan: SweepPlan,
    data: Artifact,
    teaching: Teaching,
    views: Views,
    task: str,
    slots: Slots,
    should_stop: Callable[[], bool] = lambda: False,
    start: Start = RANDOM,
) -> None:
    """Train members until `plan.trials` have ended; write the winner, all trials and all curves into the draft.

    Raises SweepFailed if no member finished, Stopped if `should_stop` said so before all had ended.
    """
    job = TrialJob(
        data, teaching, plan.base, views, task, plan.metric, plan.rungs, draft.work, max(1, int(slots.num_cpus)), start
    )
    state = job.ledger.state()
    with track(plan.name, plan.trials, "trials") as advance:
        advance(len(state.results))
        if len(state.results) < plan.trials:
            job.check_readable()
            _execute(plan, job, state, slots, should_stop, advance)
    state = job.ledger.state()
    if len(state.results) < plan.trials:
        raise Stopped(
            f"{plan.name}: stopped with {len(state.results)} of {plan.trials} trials done; run again to continue"
        )
    _refuse_without_winner(plan, state)
    write_results(draft, plan.metric, state, draft.work)


def _execute(
    plan: SweepPlan,
    job: TrialJob,
    state: LedgerState,
    slots: Slots,
    should_stop: Callable[[], bool],
    advance: Advance,
) -> None:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # loggers cost time, and the ledger logs
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "86400"  # Tune's own state is never restored
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output engine prints a banner even at verbose=0
    halving = _Halving(plan, job, state)
    with tempfile.TemporaryDirectory(prefix="distill-tune-") as folder:
        trainable = tune.with_resources(
            tune.with_parameters(MemberTrainable, job=job), {"cpu": slots.num_cpus, "gpu": slots.num_gpus}
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_LedgerSearcher(plan, job, state),
                scheduler=halving,
                num_samples=plan.trials - len(state.results),
                max_concurrent_trials=slots.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=plan.name,
                storage_path=folder,
                verbose=0,
                stop=_StopWhen(should_stop),
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[_Progress(advance)],
            ),
        )
        tuner.fit()


class _NotKept:
    """Tune pickles its parts into its own state, which is never read: nothing of ours goes there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _LedgerSearcher(_NotKept, Searcher):
    """Gives Tune the members that have not ended, then new ones, each entered before it is given."""

    def __init__(self, plan: SweepPlan, job: TrialJob, state: LedgerState) -> None:
        super().__init__(metric="score", mode="max")
        self.job, self.state, self.plan = job, state, plan
        self.search = Search(plan.search, plan.space, dict(plan.base), plan.trials, plan.seed)
        self.num_told = 0
        self.waiting = state.unfinished
        self.given: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        if self.waiting:
            number = self.waiting.pop(0)
        else:
            number = len(self.state.members)
            if number >= self.plan.trials:
                return Searcher.FINISHED
            if any(earlier not in self.state.results for earlier in range(number - self.plan.in_flight + 1)):
                return None  # Tune asks again
            self.state.members[number] = self.job.ledger.add_member(number, self._ask(number))
        self.given[trial_id] = number
        return {"number": number, "settings": self.state.members[number]}

    def _ask(self, number: int) -> dict[str, Any]:
        for earlier in range(self.num_told, max(self.num_told, number - self.plan.in_flight + 1)):
            self.search.tell(self.state.members[earlier], self.state.results[earlier]["score"])
            self.num_told = earlier + 1
        return self.search.ask(number)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self.given.pop(trial_id)
        ended = self.job.ledger.result(number)
        if ended is None:
            ended = lost_result(number, self.job, f"its process died {MAX_FAILURES + 1} times; see the log of its node")
        self.state.results[number] = ended
        log.info(
            "trial %d: %s after %s epochs, score %s, %s %s",
            *(number, ended["status"], ended["epochs"], ended["score"], self.state.members[number], ended["reason"]),
        )

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""


class _Halving(_NotKept, FIFOScheduler):
    """The pure rule of halving.py over the ledger's rungs."""

    def __init__(self, plan: SweepPlan, job: TrialJob, state: LedgerState) -> None:
        super().__init__()
        self.job, self.plan, self.scores = job, plan, state.rungs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["done"]:
            return str(TrialScheduler.CONTINUE)
        number, score = result["number"], result["score"]
        rung = self.scores.setdefault(result["epochs"], {})
        rung[number] = score
        earlier = [rung[other] for other in rung if other <= number - self.plan.in_flight]
        if keeps(score, [*earlier, score], self.plan.reduction):
            return str(TrialScheduler.CONTINUE)
        stopped_result(number, self.job, result["epochs"], score)
        return str(TrialScheduler.STOP)


class _StopWhen(_NotKept, tune.Stopper):
    def __init__(self, condition: Callable[[], bool]) -> None:
        self.condition = condition

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.condition()


class _Progress(_NotKept, tune.Callback):
    def __init__(self, advance: Advance) -> None:
        self.advance = advance

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.advance(1)


def _refuse_without_winner(plan: SweepPlan, state: LedgerState) -> None:
    if not any(result["status"] == "finished" for result in state.results.values()):
        reasons = sorted({f"  trial {number}: {result['reason']}" for number, result in state.results.items()})
        raise SweepFailed(
            f"{plan.name}: none of {plan.trials} trials finished:\n" + "\n".join(reasons[:5]) + "\n"
            "Correct what they say; `distill retry STEP` drops these trials and starts the sweep over"
        )
