"""Models of transformers: built small with random weights, saved by the library, and read by our own code."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import Corrupt, ModelError
from distill_platform.models import (
    Ids,
    SavedModel,
    Standardize,
    Tokenized,
    load_network,
    load_student_folder,
    model_source,
    preprocess_for,
    save_model,
)
from distill_platform.models.builders import check_body
from distill_platform.models.capture import capture
from distill_platform.models.reference import Reference
from distill_platform.models.saved import model_files
from distill_platform.models.start import from_layers
from distill_platform.starts import fetch_model
from distill_platform.storage import open_storage
from distill_platform.train.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("vision_libraries")

TEXT = InputSpec("text", (44,), "uint8", 0, 255)
TEXTS = ["how do i top up", "card lost", "zzz", "how do i freeze my card please, it is lost"]
CLASSES = ("freeze", "lost", "top up")


def write_tokenizer(folder: Path, words: tuple[str, ...] = ("how", "do", "i", "top", "up", "card", "lost")) -> None:
    """A tokenizer of whole words, written by the library."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    tokenizer = Tokenizer(WordLevel({word: id for id, word in enumerate(special + words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "[SEP]", "model_max_length": 32}))


def write_model(folder: Path, auto: str, model_type: str, **config: Any) -> Path:
    """A model with random weights, saved by transformers."""
    import transformers

    torch.manual_seed(5)
    made = transformers.AutoConfig.for_model(model_type, **config)
    getattr(transformers, auto).from_config(made).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, vision_libraries: None) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 30, "max_position_embeddings": 32}
    write_model(folder, "AutoModelForSequenceClassification", "distilbert", **sizes, id2label=dict(enumerate(CLASSES)))
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory, vision_libraries: None) -> Path:
    folder = tmp_path_factory.mktemp("generator")
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 16, "n_positions": 32}
    write_model(folder, "AutoModelForCausalLM", "gpt2", **sizes, bos_token_id=3, eos_token_id=3)
    write_tokenizer(folder)
    return folder


def schema(form: InputSpec = TEXT, classes: tuple[str, ...] = CLASSES) -> Schema:
    return Schema(form, classes, {}, (0.0,), (1.0,))


def saved(folder: Path, data: Schema, **args: Any) -> SavedModel:
    name = f"hf:{folder}"
    return SavedModel(name, args, data.input, data.class_names, preprocess_for(name, args, data))


def raw(texts: list[str], length: int = 44) -> torch.Tensor:
    return torch.tensor([list(text.encode().ljust(length, b"\0")) for text in texts], dtype=torch.uint8)


def test_a_pretrained_text_model_says_what_transformers_says(classifier: Path) -> None:
    import transformers

    network = saved(classifier, schema()).build(1).eval()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(classifier / "tokenizer.json"), pad_token="[PAD]", model_max_length=32
    )
    given = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        wanted = model(input_ids=given.input_ids, attention_mask=given.attention_mask).logits
        assert torch.allclose(network(raw(TEXTS))["logits"].values, wanted, atol=1e-5)
        assert torch.allclose(network(raw(TEXTS[:1]))["logits"].values, wanted[:1], atol=1e-5)
    assert not network._is_listened_to()  # the library has no hooks of its own, so batches are cut


def test_a_saved_model_needs_neither_the_folder_it_came_from_nor_a_network(classifier: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(classifier, source)
    model = saved(source, schema())
    network = model.build().eval()
    save_model(tmp_path / "saved", model, network)
    shutil.rmtree(source)
    student = load_student_folder(tmp_path / "saved")
    assert np.allclose(student.logits(TEXTS), network(raw(TEXTS))["logits"].values.detach().numpy(), atol=1e-6)
    again = tmp_path / "again"
    save_model(again, student.model, student.network)
    assert (again / "model.json").read_text() == (tmp_path / "saved" / "model.json").read_text()
    assert model_files(again) == ["model.json", "weights.safetensors", "tokenizer.json"]


def test_a_changed_tokenizer_is_refused(classifier: Path, tmp_path: Path) -> None:
    model = saved(classifier, schema())
    save_model(tmp_path, model, model.build())
    definition = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(definition.replace('"card"', '"kard"'))
    with pytest.raises(Corrupt, match=r"tokenizer\.json: sha256 is .* model\.json says"):
        load_network(tmp_path)


def test_weights_that_are_tied_are_kept_once_and_are_tied_again(generator: Path, tmp_path: Path) -> None:
    import transformers

    names = transformers_vocabulary(generator)
    form = InputSpec("tokens", (12,), "int32", 0, 10)
    model = saved(generator, schema(form, names))
    network = model.build().eval()
    state = network.state_dict()
    assert "body.model.transformer.wte.weight" in state
    assert "body.model.lm_head.weight" not in state
    Checkpoints(open_storage(str(tmp_path / "checkpoints"))).save(state, {"step": 0})
    save_model(tmp_path / "saved", model, network)
    student = load_student_folder(tmp_path / "saved")
    assert student.network.body.model.lm_head.weight is student.network.body.model.transformer.wte.weight
    ids = [[2, 4, 5, 6], [7, 8, 9, 1, 0, 3]]
    logits = student.logits(ids)
    assert logits.shape == (2, 12, 11)
    library = transformers.AutoModelForCausalLM.from_pretrained(generator).eval()
    for row, sequence in enumerate(ids):
        with torch.inference_mode():
            wanted = library(input_ids=torch.tensor([sequence])).logits[0, :, :11]
        assert np.allclose(logits[row, : len(sequence)], wanted.numpy(), atol=1e-5)
        assert (logits[row, len(sequence) :] == 0).all()


def transformers_vocabulary(folder: Path) -> tuple[str, ...]:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return tuple(sorted(vocabulary, key=vocabulary.__getitem__))


def test_a_language_model_of_another_vocabulary_is_refused(generator: Path) -> None:
    names = transformers_vocabulary(generator)
    form = InputSpec("tokens", (12,), "int32", 0, 10)
    other = (*names[:5], "what", *names[6:])
    with pytest.raises(ModelError, match=f"token 5 is {names[5]!r} and 'what'; prepare the data with data.tokenizer"):
        saved(generator, schema(form, other))


def test_sequences_longer_than_a_pretrained_model_knows_positions_for_are_refused(generator: Path) -> None:
    form = InputSpec("tokens", (48,), "int32", 0, 10)
    model = saved(generator, schema(form, transformers_vocabulary(generator)))
    with pytest.raises(ModelError, match="max_position_embeddings 32, the data wants 48; shorten data.length"):
        model.build()
    assert replace(model, args={"pretrained": False}).build().body.model.config.n_positions == 48


def test_classes_in_another_order_are_refused_and_the_mapping_that_is_offered_mends_them(classifier: Path) -> None:
    turned = schema(classes=("top up", "freeze", "lost"))
    with pytest.raises(
        ModelError, match=r"another order: freeze, lost, top up, the data .* add class_order: \[2, 0, 1\]"
    ):
        saved(classifier, turned)
    mended = saved(classifier, turned, class_order=[2, 0, 1]).build().eval()
    plain = saved(classifier, schema()).build().eval()
    assert torch.equal(mended(raw(TEXTS))["logits"].values, plain(raw(TEXTS))["logits"].values[:, [2, 0, 1]])


def test_other_classes_of_the_same_number_are_refused_unless_the_head_is_to_be_new(classifier: Path) -> None:
    other = schema(classes=("x", "y", "z"))
    with pytest.raises(ModelError, match="with other names, freeze, lost, top up, .* add new_head: true"):
        saved(classifier, other)
    old = saved(classifier, schema()).build().state_dict()
    new = saved(classifier, other, new_head=True).build().state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"body.model.classifier.weight", "body.model.pre_classifier.weight"}


def test_another_number_of_classes_makes_a_new_head_which_the_log_says(
    classifier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "distill_platform"):
        network = saved(classifier, schema(classes=("a", "b", "c", "d"))).build()
    assert network(raw(TEXTS))["logits"].values.shape == (4, 4)
    assert "drawn new" in caplog.text
    assert "classifier.weight" in caplog.text


def test_a_configuration_alone_makes_a_model_drawn_from_the_seed(classifier: Path) -> None:
    model = saved(classifier, schema(), pretrained=False, config={"n_layers": 1, "dim": 8})
    first, again, other = (model.build(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert not any("layer.1" in name for name in first)
    with pytest.raises(ModelError, match="config has no field 'n_layer'; did you mean n_layers"):
        saved(classifier, schema(), pretrained=False, config={"n_layer": 1}).build()


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_model_is_checked_without_reading_its_weights(classifier: Path, generator: Path, pretrained: bool) -> None:
    form = InputSpec("tokens", (12,), "int32", 0, 10)
    for folder, data in ((classifier, schema()), (generator, schema(form, transformers_vocabulary(generator)))):
        args = {"pretrained": pretrained}
        preprocess = preprocess_for(f"hf:{folder}", args, data)
        num_classes, per_token = len(data.class_names), data.input.kind == "tokens"
        check_body(f"hf:{folder}", args, data.input, num_classes, preprocess, per_token=per_token)


def test_attention_and_layers_can_be_listened_to(classifier: Path) -> None:
    network = saved(classifier, schema(), attention="eager").build().eval()
    name = next(name for name, _ in network.body.named_modules() if name.endswith("layer.0.attention"))
    found = capture(network, {f"{name}:attention": "whole", "model.distilbert.transformer.layer.*": "whole"})(
        raw(TEXTS)
    )
    assert found[f"layer.{name}:attention"].shape == (4, 2, 32, 32)
    assert found["layer.model.distilbert.transformer.layer.1"].shape == (4, 32, 16)


def test_a_student_starts_from_every_other_layer_of_a_librarys_teacher(classifier: Path) -> None:
    teacher = saved(classifier, schema()).build()
    student = saved(classifier, schema(), pretrained=False, config={"n_layers": 1}).build()
    student.load_state_dict(from_layers(student, teacher, [1]))
    kept = student.body.model.distilbert.transformer.layer[0].state_dict()
    given = teacher.body.model.distilbert.transformer.layer[1].state_dict()
    assert all(torch.equal(kept[name], given[name]) for name in given)


def test_an_image_model_has_its_own_mean_and_takes_grey_as_three_colours(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": {0: "no", 1: "yes"}}
    write_model(tmp_path, "AutoModelForImageClassification", "vit", **sizes, image_size=8, patch_size=4, **labels)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.1, 0.2, 0.3]}')
    grey = schema(InputSpec("image", (8, 8, 1), "uint8", 0, 255), ("no", "yes"))
    model = saved(tmp_path, grey)
    assert isinstance(model.preprocess, Standardize)
    assert model.preprocess.mean == pytest.approx((127.5,))
    assert model.preprocess.std == pytest.approx((51.0,))
    network = model.build().eval()
    pixels = torch.randint(0, 255, (2, 8, 8, 1), dtype=torch.uint8)
    colours = ((pixels.float() - 127.5) / 51).movedim(-1, 1).expand(-1, 3, -1, -1)
    wanted = network.body.model(pixel_values=colours).logits
    assert torch.allclose(network(pixels)["logits"].values, wanted, atol=1e-5)
    save_model(tmp_path / "saved", model, network)
    assert load_student_folder(tmp_path / "saved").predict(pixels.numpy()) == [
        ("no", "yes")[i] for i in wanted.argmax(-1)
    ]
    large = schema(InputSpec("image", (16, 16, 1), "uint8", 0, 255), ("no", "yes"))
    with pytest.raises(ModelError, match="image_size 8, the data wants 16; set data.image_size"):
        saved(tmp_path, large).build()
    assert saved(tmp_path, large, pretrained=False).build()(torch.zeros(1, 16, 16, 1))["logits"].values.shape == (1, 2)


def test_without_a_tokenizer_a_new_model_reads_bytes_and_a_pretrained_one_is_refused(
    classifier: Path, tmp_path: Path
) -> None:
    shutil.copytree(classifier, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    model = saved(tmp_path / "bare", schema(), pretrained=False)
    assert model.preprocess == Ids(256)
    assert model.build()(raw(TEXTS))["logits"].values.shape == (4, 3)
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json"):
        saved(tmp_path / "bare", schema())


def test_texts_are_cut_at_max_tokens_and_remembered(classifier: Path) -> None:
    preprocess = saved(classifier, schema(), max_tokens=6).preprocess
    assert isinstance(preprocess, Tokenized)
    module = preprocess.module(TEXT)
    values, mask = module(raw(TEXTS))
    assert values[1].tolist() == [2, 9, 10, 3, 0, 0]
    assert mask.sum(1).tolist() == [6, 4, 3, 6]
    assert values[3, -1] == 3
    assert module._ids.keys() == {text.encode() for text in TEXTS}


def test_another_model_in_the_folder_makes_a_new_key(classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier, tmp_path / "copy")
    name = f"hf:{tmp_path / 'copy'}"
    before = model_source(name)
    assert before == model_source(f"hf:{classifier}")
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert model_source(name) != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:someone/model", "is not pinned: got revision '', wanted the commit's 40 hex digits"),
        ("hf:someone/model@main", "got revision 'main'"),
        ("hf:./nowhere", "there is no such folder"),
    ],
)
def test_what_is_no_folder_and_not_pinned_is_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        preprocess_for(name, {}, schema())


def test_a_commit_of_the_hub_names_its_content() -> None:
    assert Reference.of(f"hf:someone/model@{'a' * 40}").source is None


def test_a_commit_of_the_hub_is_read_from_its_cache_without_a_network(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef" * 2 + "01234567"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    name = f"hf:someone/model@{commit}"
    with pytest.raises(ModelError, match=r"config\.json is not in the hub's cache here, and the hub is out of reach"):
        preprocess_for(name, {}, schema())
    shutil.copytree(classifier, tmp_path / "models--someone--model" / "snapshots" / commit)
    data = schema()
    model = SavedModel.for_data(name, {}, data)
    wanted = saved(classifier, data).build().eval()(raw(TEXTS))["logits"].values
    assert torch.equal(model.build().eval()(raw(TEXTS))["logits"].values, wanted)


def test_a_given_teachers_tokenizer_is_fetched_with_it(classifier: Path, tmp_path: Path) -> None:
    model = saved(classifier, schema())
    network = model.build().eval()
    save_model(tmp_path / "given", model, network)
    (tmp_path / "fetched").mkdir()
    _, fetched = load_network(fetch_model(str(tmp_path / "given"), tmp_path / "fetched"))
    assert torch.equal(fetched(raw(TEXTS))["logits"].values, network(raw(TEXTS))["logits"].values)
    description = json.loads((tmp_path / "given" / "model.json").read_text())
    description["files"] = {"../escaped": "0" * 64}
    (tmp_path / "given" / "model.json").write_text(json.dumps(description))
    with pytest.raises(Corrupt, match=r"names the file '\.\./escaped', wanted plain names"):
        model_files(tmp_path / "given")


def test_weights_that_are_pickled_are_not_read(classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only safetensors are"):
        saved(tmp_path / "pickled", schema()).build()


def test_code_in_a_models_folder_is_not_run(classifier: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(classifier, tmp_path / "coded")
    config = json.loads((classifier / "config.json").read_text())
    code = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": code}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    network = saved(folder, schema()).build()
    assert type(network.body.model).__name__ == "DistilBertForSequenceClassification"
    assert not (tmp_path / "ran").exists()


def test_the_weights_of_another_model_are_refused(classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier, tmp_path / "mixed")
    config = json.loads((classifier / "config.json").read_text())
    (tmp_path / "mixed" / "config.json").write_text(json.dumps({**config, "n_layers": 3}))
    with pytest.raises(ModelError, match="its weights hold none for distilbert"):
        saved(tmp_path / "mixed", schema()).build()


def test_sound_is_refused(classifier: Path) -> None:
    with pytest.raises(ModelError, match="takes text, tokens, image inputs, the data has audio inputs; use conv1d"):
        saved(classifier, schema(InputSpec("audio", (100,), "int16", -1, 1, sample_rate=8000)))
