"""torchdistill in a process of its own, driven line by line: it knows nothing of the platform but the files in FOLDER.

    python torchdistill_worker.py FOLDER

FOLDER holds `problem.json`, `problem.pt` (tensors, weights and orders) and `tensors.pt` (for loss values). Prints one
line of JSON when it is ready, and then one for each line of JSON on standard input:

    {"do": "values"}                                  the value of every loss
    {"do": "train", "method": …, "seed": …}           a student trained to the end: its answers to the test inputs
    {"do": "step", "arm": …, "method": …}             mean CPU-seconds of a step over one more epoch of an arm

Arms are a teacher and how batches are made. `live`: examples go one by one through a DataLoader, as in torchdistill's
own scripts. `batches`: whole batches are cut from one tensor instead. `nhwc`: those besides lie channels last in
memory, as the platform's do, which torch's kernels take another path for. `table`: stored logits stand in the
teacher's place, looked up by index. torchdistill 1.1.5 has no store of teacher outputs: that one is written here,
through its own registries.
"""

from __future__ import annotations

import ctypes
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

# torchvision, which torchdistill imports for its data sets, may come as a wheel that does not fit torch's CPU build.
# Its operators are missing then, and importing it fails where it registers kernels for them. Nothing here calls them.
try:
    import torchvision  # noqa: F401
except RuntimeError:
    _OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchdistill.core.distillation import DistillationBox
from torchdistill.core.interfaces.registry import register_forward_proc_func
from torchdistill.datasets.registry import register_collate_func
from torchdistill.losses.mid_level import (
    ATLoss,
    CRDLoss,
    DISTLoss,
    KDLoss,
    LogitStdKDLoss,
    RKDLoss,
)

Json = dict[str, Any]


class Examples(Dataset[Any]):
    """Inputs and labels, one example at a time."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.labels[index]


class WholeBatches(Examples):
    """The same, a batch at a time, with its rows beside it; in memory channels first or last."""

    def __init__(self, inputs: Tensor, labels: Tensor, channels_last: bool) -> None:
        super().__init__(inputs.movedim(1, -1).contiguous() if channels_last else inputs, labels)
        self.channels_last = channels_last

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        rows = torch.as_tensor(indices)
        inputs = self.inputs.index_select(0, rows)
        inputs = inputs.movedim(-1, 1) if self.channels_last else inputs
        return inputs, self.labels.index_select(0, rows), {"index": rows}


class Given(Sampler[int]):
    """The orders that were handed over, one epoch after the other, and from the beginning again."""

    def __init__(self, dataset: Dataset[Any], orders_EN: Tensor) -> None:
        self.orders, self.epoch = orders_EN, 0

    def __len__(self) -> int:
        return self.orders.shape[1]

    def __iter__(self) -> Iterator[int]:
        rows = self.orders[self.epoch % len(self.orders)]
        self.epoch += 1
        return iter(rows.tolist())


class Table(nn.Module):
    """Stored logits `[N, C]` in the place of a teacher."""

    def __init__(self, logits_NC: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits_NC)

    def forward(self, rows: Tensor) -> Tensor:
        return self.logits.index_select(0, rows)


@register_forward_proc_func
def forward_rows(model: nn.Module, batch: Tensor, targets: Tensor, supp_dict: Mapping[str, Tensor], **_: Any) -> Tensor:
    return model(supp_dict["index"])  # type: ignore[no-any-return]


@register_collate_func
def as_it_is(batch: Any) -> Any:
    return batch


def cnn(depth: int, side: int, channels: Sequence[int], num_classes: int) -> nn.Sequential:
    """What the platform calls `cnn`, in plain torch; weights are loaded by name, and logits are checked."""
    layers: list[nn.Module] = []
    for units in channels:
        layers += [nn.Conv2d(depth, units, 3, padding=1, bias=False), nn.BatchNorm2d(units), nn.ReLU()]
        if side > 1:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        depth = units
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(depth, num_classes))


class Problem:
    """What both sides train on."""

    def __init__(self, folder: Path) -> None:
        self.given: Json = json.loads((folder / "problem.json").read_text())
        self.tensors: dict[str, Tensor] = torch.load(folder / "problem.pt", weights_only=True)
        self.boxes: dict[tuple[str, str], DistillationBox] = {}
        logits = self._probed(self.network("teacher", "teacher."))
        wanted = self.tensors["teacher_logits"][: len(logits)]
        if not torch.allclose(logits, wanted, rtol=1e-3, atol=1e-3):
            off = float((logits - wanted).abs().max())
            raise RuntimeError(f"the teacher's logits differ by up to {off}: its definition here is not the platform's")

    def network(self, name: str, prefix: str) -> nn.Sequential:
        depth, side = self.tensors["inputs"].shape[1:3]
        network = cnn(depth, side, self.given[name], self.given["num_classes"])
        weights = {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}
        network.load_state_dict(weights)
        return network

    @torch.no_grad()
    def _probed(self, teacher: nn.Module) -> Tensor:
        return teacher.eval()(self.tensors["inputs"][:64])  # type: ignore[no-any-return]

    def box(self, arm: str, method: str, seed: int) -> DistillationBox:
        """torchdistill's own box over teacher, student and data."""
        whole, table, given = (
            "batches" in arm,
            arm.startswith("table"),
            (self.tensors["inputs"], self.tensors["labels"]),
        )
        data = WholeBatches(*given, channels_last="nhwc" in arm) if whole else Examples(*given)
        teacher = Table(self.tensors["teacher_logits"]) if table else self.network("teacher", "teacher.").eval()
        return DistillationBox(
            teacher,
            self.network("student", f"student.{seed}."),
            {"train": data},
            self._config(whole, table, method, self.tensors[f"order.{seed}"]),
            torch.device("cpu"),
            None,
            False,
            1,
        )

    def _config(self, whole: bool, table: bool, method: str, orders_EN: Tensor) -> Json:
        given = self.given
        num_steps = given["epochs"] * -(-orders_EN.shape[1] // given["batch_size"])
        hooks = {"forward_hook": {"output": [given["layer"]]}} if method == "attention" else {}
        loader = {"requires_supp": False, "collate_fn": "as_it_is"} if whole else {}
        return {
            "num_epochs": given["epochs"],
            "train_data_loader": {
                "dataset_id": "train",
                "sampler": {"class_or_func": Given, "kwargs": {"orders_EN": orders_EN}},
                "kwargs": {"batch_size": given["batch_size"], "num_workers": 0},
                **loader,
            },
            "teacher": {
                "forward_proc": "forward_rows" if table else "forward_batch_only",
                "requires_grad": False,
                **hooks,
            },
            "student": {"forward_proc": "forward_batch_only", **hooks},
            "optimizer": {
                "key": "SGD",
                "kwargs": {"lr": given["lr"], "momentum": given["momentum"], "nesterov": True, "fused": True},
            },
            "scheduler": {
                "key": "CosineAnnealingLR",
                "kwargs": {"T_max": num_steps},
                "scheduling_step": 1,
            },
            "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": self._terms(method)}},
        }

    def _terms(self, method: str) -> Json:
        given = self.given
        logits = {"student_module_path": ".", "student_module_io": "output"}
        logits |= {"teacher_module_path": ".", "teacher_module_io": "output"}
        settings = {**logits, "temperature": given["temperature"], "alpha": 0.5}
        terms: Json = {"kd": {"criterion": {"key": "KDLoss", "kwargs": settings}, "weight": 1.0}}
        if method == "attention":
            of_layer = {"io": "output", "path": given["layer"]}
            pairs = {"at_pairs": {"pair": {"teacher": of_layer, "student": of_layer}}}
            # the mean over pixels there, half the sum here
            weight = given["attention_weight"] * given["layer_pixels"] / 2
            terms["at"] = {"criterion": {"key": "ATLoss", "kwargs": {**pairs, "mode": "code"}}, "weight": weight}
        return terms


def run_epoch(box: DistillationBox, epoch: int, after_step: Callable[[float], None]) -> None:
    """As the loop of torchdistill's own scripts, without their meters."""
    box.pre_epoch_process(epoch=epoch)
    for inputs, labels, supplement in box.train_data_loader:
        box.pre_forward_process()
        loss = box.forward_process(inputs, labels, supplement)
        box.post_forward_process(loss=loss)
        after_step(loss.item())
    box.post_epoch_process()


def train(problem: Problem, method: str, seed: int, arm: str = "live, batches, nhwc") -> Json:
    box, losses = problem.box(arm, method, seed), list[float]()
    for epoch in range(box.num_epochs):
        run_epoch(box, epoch, losses.append)
    student = box.student_model.eval()
    with torch.no_grad():
        answers = torch.cat([student(part).argmax(-1) for part in problem.tensors["test_inputs"].split(128)])
    return {"answers": answers.tolist(), "losses": losses}


def step(problem: Problem, arm: str, method: str) -> Json:
    """From the end of an epoch's first step to that of its last; the student goes on learning from call to call."""
    box = problem.boxes.get((arm, method)) or problem.box(arm, method, 0)
    problem.boxes[arm, method] = box
    ends: list[float] = []
    run_epoch(box, 0, lambda _: ends.append(time.process_time()))
    return {"cpu_s": (ends[-1] - ends[0]) / (len(ends) - 1)}


def values(t: Mapping[str, Tensor]) -> dict[str, float]:
    """Each loss by the name that the platform's side has for it."""
    student = {".": {"output": t["student_logits"]}, "maps": {"output": t["student_maps"]}}
    teacher = {".": {"output": t["teacher_logits"]}, "maps": {"output": t["teacher_maps"]}}
    for side, io in enumerate((student, teacher)):
        io["vectors"] = {"output": t["student_vectors" if side == 0 else "teacher_vectors"]}
        io["embedding"] = {"output": t["embeddings"][side]}
    num_examples, num_negatives = len(t["index"]), len(t["negatives"])
    others = t["negatives"].expand(num_examples, num_negatives)
    student["rows"] = {"input": {"pos_idx": t["index"], "contrast_idx": torch.cat((t["index"][:, None], others), 1)}}
    logits, mse = (".", "output", ".", "output"), nn.MSELoss()
    regressed = nn.functional.conv2d(t["student_maps"], t["hint_weight"], t["hint_bias"])
    pair = {"pair": {name: {"io": "output", "path": "maps"} for name in ("student", "teacher")}}
    modules: dict[str, nn.Module] = {
        "soft_targets, T = 1": KDLoss(*logits, temperature=1.0, alpha=0.0),
        "soft_targets, T = 4": KDLoss(*logits, temperature=4.0, alpha=0.0),
        "task and soft_targets, T = 4": KDLoss(*logits, temperature=4.0, alpha=0.5),
        "soft_targets standardized, T = 2": LogitStdKDLoss(*logits, temperature=2.0, alpha=0.0),
        "soft_targets standardized, T = 2 sqrt(C / (C - 1)) for ours": LogitStdKDLoss(
            *logits, temperature=2.0, alpha=0.0
        ),
        "dist, T = 1": DISTLoss(*logits),
        "dist, T = 4, beta = 2": DISTLoss(*logits, beta=2.0, tau=4.0),
        "attention, as the authors' code": ATLoss(pair, mode="code"),
        "attention, as the paper": ATLoss(pair, mode="paper"),
        "rkd, distances": RKDLoss("vectors", "vectors", 1.0, 0.0, "mean"),
        "rkd, angles": RKDLoss("vectors", "vectors", 0.0, 1.0, "mean"),
        "crd": _contrast(t, num_negatives),
    }
    found = {name: float(module(student, teacher, t["labels"])) for name, module in modules.items()}
    return found | {
        "logit_mse": float(mse(t["student_logits"], t["teacher_logits"])),
        "hint": float(mse(regressed, t["teacher_maps"])),
        "hidden_states, mse": float(mse(t["student_vectors"], t["teacher_vectors"])),
    }


def _contrast(t: Mapping[str, Tensor], num_negatives: int) -> CRDLoss:
    num_rows, width = t["bank"].shape[1:]
    loss = CRDLoss("embedding", "rows", "embedding", width, num_rows, num_negatives, num_rows, temperature=0.07)
    loss.memory_v1.copy_(t["bank"][0])
    loss.memory_v2.copy_(t["bank"][1])
    loss.params[2:4] = t["partitions"]
    return loss


def keep_freed_memory() -> None:
    """Tell glibc to hand freed memory to the next step instead of the system, as in `same_problem.py`."""
    libc = ctypes.CDLL(None)
    for option, size_bytes in ((-3, 1 << 25), (-1, 1 << 30)):  # M_MMAP_THRESHOLD at its most, M_TRIM_THRESHOLD
        libc.mallopt(option, size_bytes)


def main(folder: Path) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    problem = Problem(folder)
    tensors = torch.load(folder / "tensors.pt", weights_only=True)
    actions: dict[str, Callable[..., Any]] = {
        "values": lambda: values(tensors),
        "train": lambda **asked: train(problem, **asked),
        "step": lambda **asked: step(problem, **asked),
    }
    answer({"version": metadata.version("torchdistill"), "torch": torch.__version__})
    for line in sys.stdin:
        asked = json.loads(line)
        answer(actions[asked.pop("do")](**asked))


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
