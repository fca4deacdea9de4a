"""A spec holds no credentials, and no message repeats one."""

from __future__ import annotations

import pytest

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("override", "path"),
    [
        (f"registry.tracking_uri=https://bob:{SECRET}@mlflow.example", "registry.tracking_uri"),
        (f"registry.tracking_uri=https://{SECRET}@mlflow.example", "registry.tracking_uri"),
        (f"data.source=s3://bucket/x.npz?X-Amz-Signature={SECRET}", "data.source"),
        ("data.source=s3://AKIAABCDEFGHIJKLMNOP/x.npz", "data.source"),
        (f"teacher.model.token={SECRET}", "teacher.model.token"),
        (f"teacher.model.hub={{api-key: {SECRET}}}", "teacher.model.hub.api-key"),
        (f"password={SECRET}", "password"),
        (f"student.layers=[a, 'ftp://x:{SECRET}@y']", "student.layers.1"),
    ],
)
def test_a_credential_is_refused_without_being_shown(faults, small, override, path):
    (line,) = faults(small, override, "train.lr=fast")
    assert line.startswith(f"--set  {path}: ")
    assert "give it by environment" in line
    assert SECRET not in line


def test_numbers_of_tokens_are_no_credentials(faults, small):
    lines = faults(small, "student.num_tokens=16", "student.class_token=true")
    arguments = [line.split(": ")[1] for line in lines]
    assert arguments == [
        "model 'mlp' has no argument 'num_tokens'; it takes",
        "model 'mlp' has no argument 'class_token'; it takes",
    ]
