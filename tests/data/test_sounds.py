"""Sounds: samples of 16 bits from columns of lists and from WAV files, padded, and never mistaken for padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_platform.data.prepare import describe_source, prepare_examples
from distill_platform.data.schema import PADDING
from distill_platform.data.sounds import decode_wav
from distill_platform.errors import DataError
from tests.data.small_files import HASH, write_wav, write_wavs
from tests.data.test_prepare import made, rows_in

RATE = 8000


def write_sounds(path: Path, lists: list[Any], kind: pa.DataType) -> str:
    labels = [("a", "b")[number % 2] for number in range(len(lists))]
    pq.write_table(pa.table({"sound": pa.array(lists, kind), "kind": labels}), path, row_group_size=17)
    return str(path)


def sounds(num: int = 60) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(-9000, 9000, rng.integers(5, 30)).tolist() for _ in range(num)]


def samples_in(folder: Path) -> set[tuple[int, ...]]:
    rows = np.concatenate([rows_in(folder, split)["input"] for split in ("train", "val", "test")])
    return {tuple(row[row != PADDING["audio"]].tolist()) for row in rows}


def refusal(source: str, folder: Path, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        prepare_examples(folder / "refused", source, **{"split": HASH, "seed": 0, **options})
    return str(error.value)


OPTIONS: dict[str, Any] = {"label": "kind", "input": "sound", "sample_rate": RATE}


def test_lists_of_any_length_come_back_as_they_were(tmp_path: Path) -> None:
    lists = sounds()
    source = write_sounds(tmp_path / "t.parquet", lists, pa.list_(pa.int16()))
    schema = prepare_examples(tmp_path / "out", source, **OPTIONS, split=HASH, seed=0)
    spec = schema.input
    assert (spec.kind, spec.dtype, spec.sample_rate, spec.padding) == ("audio", "int16", RATE, -(2**15))
    assert spec.shape == (max(map(len, lists)),)
    assert samples_in(tmp_path / "out") == set(map(tuple, lists))
    assert describe_source(source, **OPTIONS, split=HASH) == (60, spec.shape, 2, 0)


def test_real_samples_fill_the_same_range_and_lists_of_one_size_are_sounds_with_a_rate(tmp_path: Path) -> None:
    lists = (np.linspace(-1, 1, 240).reshape(60, 4)).tolist()
    source = write_sounds(tmp_path / "t.parquet", lists, pa.list_(pa.float32(), 4))
    folder = made(tmp_path, "out", source, **OPTIONS)
    found = sorted(samples_in(folder))
    assert found[0][0] == -32767
    assert found[-1][-1] == 32767
    assert np.abs(np.array(found) / 32767 - lists).max() < 1 / 32767


def test_the_lowest_sample_is_no_padding(tmp_path: Path) -> None:
    lists = [[-(2**15), number] for number in range(60)]
    folder = made(tmp_path, "out", write_sounds(tmp_path / "t.parquet", lists, pa.list_(pa.int16())), **OPTIONS)
    assert samples_in(folder) == {(-32767, number) for number in range(60)}


def test_long_sounds_are_cut_and_counted(tmp_path: Path) -> None:
    lists = sounds()
    source = write_sounds(tmp_path / "t.parquet", lists, pa.large_list(pa.int16()))
    schema = prepare_examples(tmp_path / "out", source, **OPTIONS, length=10, split=HASH, seed=0)
    assert sum(schema.num_cut.values()) == sum(len(one) > 10 for one in lists)
    assert samples_in(tmp_path / "out") == {tuple(one[:10]) for one in lists}


def test_sounds_that_cannot_be_inputs_are_named(tmp_path: Path) -> None:
    lists: list[Any] = [[0.5, number / 60] for number in range(60)]
    lists[3], lists[5], lists[8], lists[9] = [], [0.1, 1.5], [0.1, None], None
    said = refusal(write_sounds(tmp_path / "t.parquet", lists, pa.list_(pa.float64())), tmp_path, **OPTIONS)
    assert "1 row with a sound of no sample: t.parquet row 3" in said
    assert "1 row with a sample below -1 or above 1: t.parquet row 5" in said
    assert "1 row with a value that is missing, NaN or infinite: t.parquet row 8" in said
    assert "1 row without an input: t.parquet row 9" in said


def test_a_sample_rate_is_needed_by_lists_and_by_nothing_else(tmp_path: Path) -> None:
    source = write_sounds(tmp_path / "t.parquet", sounds(), pa.list_(pa.int16()))
    said = refusal(source, tmp_path, label="kind", input="sound")
    assert "as of sounds; give their samples per second by data.sample_rate" in said
    assert "'sound' has the type list<" in refusal(
        write_sounds(tmp_path / "i.parquet", sounds(), pa.list_(pa.int64())), tmp_path, **OPTIONS
    )
    folder = write_wavs(tmp_path / "wavs", per_class=2)
    assert "has no use for data.sample_rate" in refusal(f"audio:{folder}", tmp_path, sample_rate=RATE)


def test_wav_files_take_their_class_from_their_folder(tmp_path: Path) -> None:
    folder = write_wavs(tmp_path / "wavs")
    schema = prepare_examples(tmp_path / "out", f"audio:{folder}", split=HASH, seed=0)
    assert schema.class_names == ("high", "low")
    assert (schema.input.sample_rate, sum(schema.num_examples.values())) == (8000, 40)
    wanted = {tuple(decode_wav(path.read_bytes())[0].tolist()) for path in folder.rglob("*.wav")}
    assert samples_in(tmp_path / "out") == wanted
    assert schema.input.shape == (max(map(len, wanted)),)
    assert describe_source(f"audio:{folder}", split=HASH) == (40, schema.input.shape, 2, 0)


def test_channels_are_averaged_and_eight_bits_are_widened(tmp_path: Path) -> None:
    write_wav(tmp_path / "stereo.wav", np.array([[100, 300], [-5, -7]], "<i2"))
    assert decode_wav((tmp_path / "stereo.wav").read_bytes())[0].tolist() == [200, -6]
    write_wav(tmp_path / "bytes.wav", np.array([0, 128, 255], np.uint8), rate=4000)
    samples, rate = decode_wav((tmp_path / "bytes.wav").read_bytes())
    assert (samples.tolist(), rate) == ([-32768, 0, 32512], 4000)


def test_files_of_another_rate_or_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = write_wavs(tmp_path / "wavs")
    source = f"audio:{folder}"
    (folder / "low" / "04.wav").write_bytes(b"no sound")
    whole = (folder / "low" / "05.wav").read_bytes()
    (folder / "low" / "05.wav").write_bytes(whole[:-9])
    write_wav(folder / "low" / "06.wav", np.zeros(3, "<i4"))
    said = refusal(source, tmp_path)
    assert "3 rows that cannot be read as sound: low/04.wav (file does not start with RIFF id), low/05.wav (" in said
    assert "low/06.wav (samples of 32 bits; wanted 8 or 16)" in said
    write_wav(folder / "low" / "07.wav", np.arange(9, dtype="<i2"), rate=16000)
    said = refusal(source, tmp_path)
    assert "low/07.wav has 16000 samples per second, high/00.wav has 8000; bring all to one rate" in said
    assert "1 row of another sample rate than the first file: low/07.wav (16000)" in refusal(
        source, tmp_path, length=50
    )
    (folder / "low" / "08.wav").rename(folder / "stray.wav")
    assert "sounds in no class folder (1), such as stray.wav" in refusal(source, tmp_path)
