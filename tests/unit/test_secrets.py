"""What is written and shown has no secrets in it, and all else is as it was."""

import pytest

from bigtrain.storage.secrets import redacted

ENVIRON = {
    "AWS_SECRET_ACCESS_KEY": "abcdefgh/1",
    "HF_TOKEN": "hf_12345678",
    "SHORT_TOKEN": "a",
    "HOME": "/home/somebody",
}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("s3://user:pa@ss@bucket/a/b", "s3://***@bucket/a/b"),
        ("s3://:pass@bucket", "s3://***@bucket"),
        ("https://h/x.tar?X-Amz-Signature=1&b=2 and more", "https://h/x.tar?*** and more"),
        ("see https://u:p@h/?sig=1, or 'https://h/?sig=1'", "see https://***@h/?*** or 'https://h/?***'"),
        ("a abcdefgh/1 hf_12345678", "a *** ***"),
    ],
)
def test_secrets_are_hidden(text, left):
    assert redacted(text, ENVIRON) == left
    assert redacted({text: [text, {"a": (text,)}]}, ENVIRON) == {left: [left, {"a": (left,)}]}
    assert redacted(left, ENVIRON) == left


@pytest.mark.parametrize(
    "value",
    [
        "s3://bucket/laion/{00000..00099}.tar",
        "s3://bucket/0000?.tar",
        "abfss://container@account.dfs.core.windows.net/a",
        "/home/somebody/a?b=c",
        "me@example.org:a@b",
        3.5,
        None,
        True,
    ],
)
def test_what_is_no_secret_stays(value):
    assert redacted(value, ENVIRON) == value
