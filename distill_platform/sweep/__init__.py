"""Sweeps: many students over one cache.

space.py      what is searched: typed ranges of dotted paths
ledger.py     the truth about a sweep's members: asked, reported, ended; every entry created if absent
halving.py    ASHA's rule as a pure function
search.py     which settings the next member gets, rebuilt from the ledger
trial.py      one member trained, in a warm Ray actor
driver.py     Ray Tune executing members; the ledger deciding
results.py    the winner, and every trial as Parquet
"""

from distill_platform.sweep.driver import Slots, SweepPlan, run_sweep
from distill_platform.sweep.results import read_curves, read_trials
from distill_platform.sweep.space import Range, parse_space

__all__ = ["Range", "Slots", "SweepPlan", "parse_space", "read_curves", "read_trials", "run_sweep"]
