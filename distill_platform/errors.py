"""Every exception the platform raises, as one tree.

DistillError                     exit code 1
├── InputError                   exit code 2: what the user gave is wrong, nothing was started
│   ├── SpecError                the YAML spec, or an override of it
│   ├── DataError                a data source or what is in it
│   ├── ModelError               a model's name, arguments, weights or input
│   ├── GateError                a gate that cannot be parsed or names an unknown metric
│   └── RegistryError            a model, version or alias that is not there; a registry that may not be used
├── QualityError                 exit code 3: a measured quality is below what the spec demands
│   └── TeacherRefused           the teacher's lower bound is below its floor
├── StorageError                 a place could not be read or written
│   ├── NotFound                 nothing there
│   └── Corrupt                  bytes that are not the bytes that were written
├── FormatError                  a stored file of a version this release cannot read
├── CacheMismatch                a cache that does not belong to this teacher, data or sweep
├── TrainingDiverged             a loss or gradient that is not finite, with its step and term
├── SweepFailed                  a sweep that ended with no usable member
├── LeaseLost                    another driver took over while this one was away
├── PromotionRefused             a promotion that the log or the verdict does not allow
└── Stopped                      somebody asked the run to stop

A message says what, where, got, wanted, and what to do.
"""

from __future__ import annotations


class DistillError(Exception):
    """Base of every error that the platform raises on purpose."""

    exit_code = 1


class InputError(DistillError):
    """What the user gave is wrong; nothing was started."""

    exit_code = 2


class SpecError(InputError):
    """The spec, or an override of it, is not valid. The message lists every fault found."""


class DataError(InputError):
    """A data source cannot be used as it is; the message names the rows."""


class ModelError(InputError):
    """A model's name, arguments, weights or input do not fit."""


class GateError(InputError):
    """A gate cannot be parsed, or names a metric or a model that does not exist."""


class RegistryError(InputError):
    """A model, version or alias is not there, or this registry may not be used from here."""


class QualityError(DistillError):
    """A measured quality is below what the spec demands."""

    exit_code = 3


class TeacherRefused(QualityError):
    """The teacher's lower bound on validation data is below `teacher.floor`."""


class StorageError(DistillError):
    """A place could not be read or written."""


class NotFound(StorageError):
    """Nothing is stored under that name."""


class Corrupt(StorageError):
    """Stored bytes are not the bytes that were written."""


class FormatError(DistillError):
    """A stored file has a format version that this release cannot read."""


class CacheMismatch(DistillError):
    """A cache does not belong to this teacher, this data or this sweep."""


class TrainingDiverged(DistillError):
    """A loss or a gradient became NaN or infinite; the message names the step and the term."""


class SweepFailed(DistillError):
    """No member of a sweep finished with a finite metric."""


class LeaseLost(DistillError):
    """Another driver took over the work that this one was doing."""


class PromotionRefused(DistillError):
    """The promotion log or the verdict does not allow this promotion."""


class Stopped(DistillError):
    """Somebody asked the run to stop; running it again continues it."""
