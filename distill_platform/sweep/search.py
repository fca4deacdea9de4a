"""Which settings the next member gets. All it knows it was told from the ledger, so telling again rebuilds it."""

from __future__ import annotations

import warnings
from typing import Any

import optuna

from distill_platform.data.order import step_seed
from distill_platform.sweep.space import Settings, Space, settings_of

SEARCHES = ("tpe", "random")
MIN_STARTUP = 4


class Search:
    """Optuna's samplers behind ask and tell. The first member has the spec's own settings, if they are in the space."""

    def __init__(self, kind: str, space: Space, base: dict[str, Any], trials: int, seed: int) -> None:
        assert kind in SEARCHES
        self.kind, self.space, self.base, self.trials, self.seed = kind, space, base, trials, seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(direction="maximize")

    def ask(self, number: int) -> Settings:
        """Settings for member `number`; a function of seed, number and what was told."""
        if not self.space:
            return {}
        if number == 0 and (own := settings_of(self.base, self.space)) is not None:
            return own
        self.study.sampler = self._sampler(number)
        trial = self.study.ask({path: range_.distribution for path, range_ in self.space.items()})
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)  # told again, with its score, when it has one
        return {path: range_.from_optuna(trial.params[path]) for path, range_ in self.space.items()}

    def tell(self, settings: Settings, score: float | None) -> None:
        """How a member did: its best score, higher is better; None if it failed."""
        if score is None or not self.space:
            return
        self.study.add_trial(
            optuna.trial.create_trial(
                params={path: range_.to_optuna(settings[path]) for path, range_ in self.space.items()},
                distributions={path: range_.distribution for path, range_ in self.space.items()},
                value=score,
            )
        )

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = step_seed(self.seed, "search", number) % 2**32
        if self.kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=max(MIN_STARTUP, self.trials // 4), multivariate=True
            )
