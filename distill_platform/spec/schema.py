"""The spec: what one distillation is, as one frozen tree of sections.

A section is a pydantic model whose fields are the YAML's keys. The text under a field is its description in editors
(`distill schema`); its type and bounds are what error messages say was wanted. Names (of models, losses, transforms …)
are text here, and are checked in names.py, so that reading this file loads no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Share = Annotated[float, Ge(0), Le(1)]
Text = Annotated[str, Len(1)]
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        json_schema_extra={"wanted": "up to 100 letters, digits, '.', '_' and '-', the first a letter or a digit"},
    ),
]
Range = tuple[float, float]
IntRange = tuple[int, int]


def refuse(message: str) -> PydanticCustomError:
    """The error of a check over several fields; the message reaches the user as it is, braces included."""
    return PydanticCustomError("spec", "{message}", {"message": message})


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent conversions ("3" is not 3), no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Named(Section):
    """A name, and beside it the arguments of what it names."""

    model_config = ConfigDict(extra="allow")

    name: Text
    """What to build. The other keys beside it are its own arguments."""

    @property
    def args(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})


class ModelSpec(Named):
    """An architecture: a name from the table of models or `import:package.module:function`, and its arguments."""


class TransformSpec(Named):
    """One augmentation, and its arguments."""


class SplitByHash(Section):
    """Val and test are drawn by a hash of each example's group or id: adding examples moves none of the others."""

    by: Literal["hash"]
    """How examples are split."""
    val: Annotated[float, Gt(0), Lt(1)] = 0.15
    """Share of examples that training is steered by."""
    test: Annotated[float, Gt(0), Lt(1)] = 0.25
    """Share of examples that only the evaluation opens."""

    @model_validator(mode="after")
    def _leave_some_to_train_on(self) -> SplitByHash:
        if self.val + self.test >= 1:
            raise refuse(f"val {self.val:g} + test {self.test:g} leaves nothing to train on; wanted a sum below 1")
        return self


class SplitByColumn(Section):
    """A column of the source says train, val or test."""

    by: Literal["column"]
    """How examples are split."""
    column: Text
    """The column that holds train, val or test."""


class SplitBySources(Section):
    """The test split is a source of its own; val is drawn from the training source by hash."""

    by: Literal["sources"]
    """How examples are split."""
    test: Text | None = None
    """The test source; null where the source has its own (the MNIST family)."""
    val: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of the training source that training is steered by."""


SplitSpec = Annotated[SplitByHash | SplitByColumn | SplitBySources, Field(discriminator="by")]


class ViewsSpec(Section):
    """Augmented views of every example, the same for the teacher and all students."""

    num: Annotated[int, Ge(1), Le(32_767)] = 1
    """Views per example. View 0 is the example itself; the teacher's outputs are cached for every view."""
    augment: tuple[TransformSpec, ...] = ()
    """The transforms that make views 1, 2, …, in order."""

    @model_validator(mode="after")
    def _need_each_other(self) -> ViewsSpec:
        if self.num > 1 and not self.augment:
            raise refuse(f"num is {self.num}, but augment names no transform: all views would be equal; give some")
        if self.num == 1 and self.augment:
            raise refuse("augment names transforms, but num is 1: view 0 is never augmented; set num to 2 or more")
        return self


class DataSpec(Section):
    """Where examples come from, how they are split, and how they are augmented."""

    source: Text
    """sklearn:NAME, idx:FOLDER, images:FOLDER, audio:FOLDER, text:FILE_OR_FOLDER, or a .npz, .parquet, .csv or .csv.gz
    file; local or s3://."""
    label: Text | None = None
    """The column that holds the class."""
    id: Text | None = None
    """The column that identifies an example; without one, its content does."""
    group: Text | None = None
    """The column of what must stay in one split (a patient, a speaker)."""
    subgroup: Text | None = None
    """The column of what examples are told apart by in figures and in worst-group training."""
    input: Text | None = None
    """The column that holds an image, a text or a sound; without one, all other numeric columns are features."""
    image_size: tuple[Count, Count] | None = None
    """[height, width] in pixels that images are resized to."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for RGB."""
    length: Count | None = None
    """Longest input: bytes of a text, samples of a sound (null: as the longest has), tokens of a block (null: 128)."""
    sample_rate: Count | None = None
    """Samples per second of a column of sounds."""
    tokenizer: Text | None = None
    """Makes text into blocks of tokens: `bytes`, or `hf:FOLDER_OR_ID[@revision]`; null: bytes for a text: source."""
    transfer: Text | None = None
    """A source of examples without labels, for train alone; read as `source` is."""
    split: SplitSpec = SplitByHash(by="hash")
    """How examples are divided into train, val and test."""
    views: ViewsSpec = ViewsSpec()
    """Augmented views."""


class PartSpec(Section):
    """How a part of a model is trained."""

    lr_factor: NonNegative
    """Factor of its learning rate; 0 leaves its weights, and what its norms have counted, as they are."""


class WorstGroupSpec(Section):
    """Training for the subgroup that a model is worst in (group distributionally robust optimisation)."""

    step_size: Positive = 0.01
    """How fast the weight of a subgroup with a high loss grows."""


class TrainSpec(Section):
    """How a model is trained."""

    epochs: Count = 20
    """Passes over the training split."""
    batch_size: Count = 64
    """Examples per optimiser step."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    """The optimiser."""
    lr: Positive = 1e-3
    """Highest learning rate."""
    weight_decay: NonNegative = 1e-4
    """Weight decay."""
    momentum: Fraction = 0.9
    """Momentum of sgd; first decay rate (beta 1) of adam and adamw."""
    schedule: Literal["constant", "cosine", "linear", "step"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_fraction: Fraction = 0.05
    """Share of all steps over which the learning rate rises from 0."""
    clip_norm: Positive | None = 1.0
    """Gradients are scaled down to this norm; null leaves them."""
    patience_epochs: Count | None = None
    """Stop after so many epochs without a better validation metric; null trains all epochs."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the forward pass; auto takes the GPU's short format, and float32 on a CPU."""
    seed: Annotated[int, Ge(0)] | Literal["auto"] = "auto"
    """Seed of initial weights, order and dropout; auto takes the spec's."""
    order: Literal["global", "windowed"] = "global"
    """global permutes all examples of an epoch; windowed reads blocks of them in a shuffled order and permutes them
    within windows, for inputs or a cache larger than memory, which holds two windows."""
    window_examples: Count = 65_536
    """Examples of a window, in blocks of 4,096; not read with the global order."""
    parts: dict[Text, PartSpec] = {}
    """Layer, or pattern such as `blocks.*`, -> how it is trained; of two that hold a weight the deeper one decides."""
    worst_group: WorstGroupSpec | None = None
    """Weigh the subgroups of data.subgroup by how badly they go; null: every example counts alike."""


class TeacherSpec(Section):
    """The model whose outputs students learn from: trained here from `model`, loaded from `weights`, or the student's
    own average."""

    model: ModelSpec | None = None
    """The architecture to train."""
    weights: Text | None = None
    """URI of a saved model's folder, loaded instead of training one."""
    ema: Annotated[float, Gt(0), Lt(1)] | None = None
    """No teacher but the student itself: the moving average of its weights, of which each step keeps this share."""
    train: TrainSpec = TrainSpec()
    """How it is trained; not read with `weights`."""
    floor: Share = 0.0
    """The lower 95% bound of its validation accuracy must reach this, or nothing is spent on it."""

    @model_validator(mode="after")
    def _exactly_one(self) -> TeacherSpec:
        given = [name for name in ("model", "weights", "ema") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            wanted = "one of model (train it), weights (load it) and ema (the student's average)"
            raise refuse(f"got {got}; wanted {wanted}")
        return self


class CombineSpec(Section):
    """How several teachers become one."""

    by: Literal["mean", "fixed", "learned", "confidence", "subgroup"] = "mean"
    """mean; fixed: `weights`; learned: weights that make the mixture right on the validation split; confidence: each
    example's, by how right each teacher is on it; subgroup: one teacher for each of data.subgroup, by `routes`."""
    weights: dict[Text, NonNegative] = {}
    """fixed: name of each teacher (`teacher` is the first) -> its share; they sum to 1."""
    routes: dict[Text, Text] = {}
    """subgroup: value of data.subgroup -> name of its teacher."""

    @model_validator(mode="after")
    def _what_it_needs(self) -> CombineSpec:
        for name, needed_by in (("weights", "fixed"), ("routes", "subgroup")):
            if bool(getattr(self, name)) != (self.by == needed_by):
                raise refuse(f"by is {self.by}; {name} is wanted with {needed_by}, and with nothing else")
        if self.by == "fixed" and abs(sum(self.weights.values()) - 1) > 1e-6:
            raise refuse(f"weights sum to {sum(self.weights.values()):g}, wanted 1")
        return self


class CacheSpec(Section):
    """How the teacher's outputs are stored."""

    live: bool = False
    """true stores none: every trial asks the teacher itself, for outputs that no disk would hold."""

    codec: Text = "auto"
    """The encoding, by name; auto takes the smallest that carries the objective and its sweep."""
    dtype: Literal["float16", "float32"] = "float16"
    """Number format of what is stored."""
    keep: Count | Literal["auto"] = "auto"
    """Classes that codecs topk, sampled and ternary keep of each output; auto takes the codec's own number."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the teacher; auto takes the GPU's short format, and float32 on a CPU."""
    layers: dict[Text, Literal["pooled", "whole"]] = {}
    """Layers of the teacher to keep beside its logits, in float16: name, or pattern such as `stages.*`, to pooled (the
    mean over all but channels) or whole. `NAME:attention` keeps the attention weights of a layer that gives them."""


class Schedule(Section):
    """A number that changes while a student trains, from one value to another."""

    from_: float = Field(alias="from")
    """The value at the first step."""
    to: float
    """The value at the last."""
    until: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of all steps after which the last value is reached, and stays."""
    shape: Literal["linear", "cosine"] = "linear"
    """linear: in equal steps; cosine: slow at both ends."""

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"from": self.from_, "to": self.to, "until": self.until, "shape": self.shape}


class LossSpec(Section):
    """One term of the objective: its weight, and the loss's own settings beside it. Numbers may be schedules."""

    model_config = ConfigDict(extra="allow")

    weight: NonNegative | Schedule
    """Factor of this loss in the sum."""

    @property
    def settings(self) -> dict[str, Any]:
        """The loss's own settings, without the weight."""
        return dict(self.model_extra or {})


class _StartSpec(Section):
    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain = dump(self)
        return {"from": plain.pop("from_"), **plain}


class RandomStart(_StartSpec):
    """Random weights, drawn from train.seed."""

    from_: Literal["random"] = Field("random", alias="from")
    """Where the first weights come from."""


class WeightsStart(_StartSpec):
    """The weights of a saved model of the student's architecture and classes."""

    from_: Literal["weights"] = Field("weights", alias="from")
    """Where the first weights come from."""
    uri: Text
    """URI of its folder."""


class TeacherStart(_StartSpec):
    """As many of the (first) teacher's layers, channels, heads and neurons as the student has."""

    from_: Literal["teacher"] = Field("teacher", alias="from")
    """Where the first weights come from."""
    layers: Literal["evenly"] | Annotated[tuple[Annotated[int, Ge(0)], ...], Len(1)] = "evenly"
    """Which of the teacher's layers are kept, counted from 0; evenly: spaced so, of twice as many every other one."""
    importance: Literal["weights", "activations"] = "weights"
    """What decides which channels of a wider teacher are kept: norms of weights, or of what training examples cause."""


StartSpec = Annotated[RandomStart | WeightsStart | TeacherStart, Field(discriminator="from_")]


def _default_objective() -> dict[str, LossSpec]:
    return {"task": LossSpec(weight=0.3), "soft_targets": LossSpec.model_validate({"weight": 0.7, "temperature": 4.0})}


class Dimension(Section):
    """What a sweep may set one field to: exactly one of the five kinds."""

    uniform: Range | None = None
    """[low, high], real."""
    loguniform: Range | None = None
    """[low, high], real, even on a log scale; low > 0."""
    int_: IntRange | None = Field(None, alias="int")
    """[low, high], integers, both included."""
    logint: IntRange | None = None
    """[low, high], integers, both included, even on a log scale; low >= 1."""
    choice: Annotated[tuple[Any, ...], Len(1)] | None = None
    """A list of values."""

    @model_validator(mode="after")
    def _one_proper_kind(self) -> Dimension:
        given = self._given()
        if len(given) != 1:
            kinds = ", ".join(given) or "none"
            raise refuse(f"got {kinds}; wanted exactly one of uniform, loguniform, int, logint, choice")
        if self.kind != "choice":
            low, high = self.values
            if low >= high:
                raise refuse(f"{self.kind}: got [{low}, {high}], wanted [low, high] with low < high")
            if self.kind.startswith("log") and low <= 0:
                raise refuse(f"{self.kind}: got [{low}, {high}], wanted low > 0, because zero has no logarithm")
        return self

    @property
    def kind(self) -> str:
        """uniform, loguniform, int, logint or choice."""
        return next(iter(self._given()))

    @property
    def values(self) -> tuple[Any, ...]:
        """(low, high), or the choices."""
        return self._given()[self.kind]

    def _given(self) -> dict[str, tuple[Any, ...]]:
        kinds = {
            "uniform": self.uniform,
            "loguniform": self.loguniform,
            "int": self.int_,
            "logint": self.logint,
            "choice": self.choice,
        }
        return {kind: values for kind, values in kinds.items() if values is not None}

    @model_serializer
    def _as_written(self) -> dict[str, list[Any]]:
        return {self.kind: list(self.values)}


class SweepSpec(Section):
    """The search for the best student."""

    trials: Count = 12
    """Students that are tried; the baseline gets as many."""
    in_flight: Count = 4
    """Trials that may run at once. Trial n learns from trials up to n - in_flight and is compared with those, so what
    comes out does not depend on which trial happens to end first."""
    search: Literal["tpe", "random"] = "tpe"
    """How settings are proposed."""
    scheduler: Literal["asha", "none"] = "asha"
    """asha stops poor trials early; none runs all to the end."""
    grace_epochs: Count = 2
    """Epochs that asha gives every trial."""
    reduction: Annotated[int, Ge(2)] = 3
    """asha lets one in so many go on at each rung."""
    generations: Count = 1
    """Sweeps in a row: the best student of one teaches the next. 1 has the teacher alone teach."""
    metric: Literal["val_accuracy", "val_loss", "kl_to_teacher", "val_worst_group_accuracy"] = "val_accuracy"
    """What ranks trials, on the validation split; of val_loss and kl_to_teacher, which is at temperature 1, lower is
    better. With kl_to_teacher the baseline, which has no teacher, goes by val_accuracy.
    val_worst_group_accuracy is that of the subgroup of data.subgroup where a student is worst."""
    space: dict[str, Dimension] = {}
    """Dotted path under student, objective or train -> what it may be set to."""

    @model_validator(mode="after")
    def _something_to_search(self) -> SweepSpec:
        if self.trials > 1 and not self.space:
            raise refuse(f"{self.trials} trials with an empty space would all be the same; give space, or trials: 1")
        return self


class CompressSpec(Section):
    """How the shipped student is stored, and what of its answers is put right, by the validation split alone."""

    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of its weights."""
    calibrate: bool = False
    """Scale its logits, so that it is as sure as it is right; no prediction changes."""
    class_bias: Literal["none", "auto"] | dict[Text, Positive] = "none"
    """Shift its logits, so that each class is predicted as often as it occurs: auto as in the validation split, or
    each class -> its share, which sum to 1. Repairs a student that was never shown a class."""

    @model_validator(mode="after")
    def _shares(self) -> CompressSpec:
        if isinstance(self.class_bias, dict) and abs(sum(self.class_bias.values()) - 1) > 1e-6:
            raise refuse(f"class_bias has shares that sum to {sum(self.class_bias.values()):g}, wanted 1")
        return self


class EvaluateSpec(Section):
    """How models are measured on the test split."""

    latency_batch_size: Count = 1
    """Examples per timed call."""
    threads: Count = 1
    """CPU threads while timing."""
    latency_warmup: Annotated[int, Ge(0)] = 20
    """Calls before timing starts."""
    latency_runs: Annotated[int, Ge(20)] = 300
    """Timed calls."""


class GatesSpec(Section):
    """What must be shown before a student may ship. All checks must hold, each at its one-sided 95% bound."""

    min_examples: Count = 100
    """Test examples below which nothing passes."""
    checks: Annotated[tuple[Text, ...], Len(1)]
    """Such as `accuracy >= 0.90`, `accuracy >= teacher - 0.05`, `latency_ms_p95 <= 2`."""


class RegistrySpec(Section):
    """Where a student that passed is registered."""

    model: Name | Literal["auto"] = "auto"
    """Its name in the registry; auto takes the spec's."""
    tracking_uri: Text | None = None
    """MLflow's tracking URI; null takes MLFLOW_TRACKING_URI, else sqlite in a local workspace."""
    promote: bool = True
    """Make a student that passed the champion; false only registers it."""


class ResourcesSpec(Section):
    """Where work runs. Changes how long things take, never what comes out, and is part of no key."""

    ray_address: Text | None = None
    """Address of a Ray cluster; null starts Ray on this machine."""
    cache_workers: Count | Literal["auto"] = "auto"
    """Workers that run the teacher; auto takes as many as there are GPUs for, else one per CPU."""
    gpus_per_teacher: Annotated[int, Ge(0)] | Literal["auto"] = "auto"
    """GPUs of one such worker; the teacher's weights are spread over several. auto takes one where there are any."""
    concurrent_trials: Count | Literal["auto"] = "auto"
    """Trials at a time; auto takes what fits."""
    cpus_per_trial: Positive = 1
    """CPUs that one trial holds."""
    gpus_per_trial: NonNegative = 0
    """GPUs that one trial holds; a fraction shares one."""


class Spec(Section):
    """One distillation, from data to a promoted student."""

    name: Name
    """Names the runs and the model in the registry."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of splits, views, training and search."""
    task: Text = "classification"
    """What the models do, by name."""
    data: DataSpec
    """Examples."""
    teacher: TeacherSpec
    """The accurate, costly model."""
    teachers: dict[Name, TeacherSpec] = {}
    """More teachers, by name, that students learn from beside it; gates compare with the first."""
    combine: CombineSpec = CombineSpec()
    """How all these teachers become one; not read with a single one."""
    cache: CacheSpec = CacheSpec()
    """Its outputs at rest."""
    student: ModelSpec
    """The architecture that ships; its arguments may be swept."""
    start: StartSpec = Field(default_factory=lambda: RandomStart.model_validate({"from": "random"}))
    """What its training begins with."""
    objective: Annotated[dict[str, LossSpec], Len(1)] = Field(default_factory=_default_objective)
    """What the student minimises: loss name -> weight and settings. `task` is the task's own loss on labels."""
    train: TrainSpec = TrainSpec()
    """How students are trained."""
    sweep: SweepSpec = SweepSpec(trials=1)
    """The search; without this section, one student with the settings above."""
    compress: CompressSpec = CompressSpec()
    """How the student is stored."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """How it is measured."""
    gates: GatesSpec
    """What must be shown before it ships."""
    registry: RegistrySpec = RegistrySpec()
    """Where it is registered."""
    resources: ResourcesSpec = ResourcesSpec()
    """Where work runs."""

    @property
    def all_teachers(self) -> dict[str, TeacherSpec]:
        """Every teacher that is a model of its own, by name, `teacher` first."""
        return {} if self.teacher.ema is not None else {"teacher": self.teacher, **self.teachers}

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values, defaults included; `load_spec_json` reads it back."""
        return self.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """The JSON schema of a spec, for editors: every key with its description, type, bounds and default."""
    return Spec.model_json_schema()
