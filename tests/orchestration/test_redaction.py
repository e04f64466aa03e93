"""No secret leaves the house in a text, and what is none stays readable."""

import pytest

from orchestration.redaction import HIDDEN, redacted

SECRETS = {
    "an address's credentials": (
        "postgresql://tevad:s3cr3t!pw@db.example.org/dagster",
        "s3cr3t!pw",
    ),
    "a token in an address": ("https://x-token@host.example.org/a", "x-token"),
    "an AWS key": ("The key AKIAIOSFODNN7EXAMPLE is wrong", "AKIAIOSFODNN7EXAMPLE"),
    "an AWS secret": (
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
    "a signed address": (
        "GET https://b.s3.amazonaws.com/k?X-Amz-Signature=abcdef0123&X-Amz-Expires=60",
        "abcdef0123",
    ),
    "a session's token": ("https://b/k?X-Amz-Security-Token=FwoGZXIvYXdz%2F", "FwoGZXIvYXdz"),
    "a password": ("password: hunter2-hunter2", "hunter2-hunter2"),
    "a quoted password": ("{'db_password': 'correct horse'}", "correct"),
    "a bearer": ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
    "a bearer in a dictionary": ("{'Authorization': 'Bearer abcdefghijk'}", "abcdefghijk"),
    "an API key": ("api-key=0123456789", "0123456789"),
    "a hub's token": ("hf_abcdefghijklmnop", "hf_abcdefghijklmnop"),
    "a chat's token": ("xoxb-1234567890-abcdef", "xoxb-1234567890-abcdef"),
    "a web token": ("eyJhbGciOi.eyJzdWIiOiI.c2lnbmF0dXJl", "eyJzdWIiOiI"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_hidden(name: str) -> None:
    text, secret = SECRETS[name]
    found = redacted(f"it failed: {text} was refused")
    assert secret not in found
    assert HIDDEN in found
    assert found.startswith("it failed: ")
    assert found.endswith("was refused")
    assert redacted(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "snippet_features: /data/site/source/monday-0800.mp4: cut after 31 of 40 frames",
        "s3://bucket/prefix: cannot be listed: Connect timeout; check the bucket's name",
        "InputError: tevad_model.fusion: 'plus' is not one of concat, add, product",
        "models:/tevad-site@champion was asked for at http://127.0.0.1:5000/#/models",
        "1d9ff9e6aa316c073b5d1e5a7d1c22f0.dir",
        "the tokenizer's max_tokens: 32 are too few",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["0", "-", "token", "eyJ.", "a://"])
def test_a_long_text_takes_no_longer_than_it_is(part: str) -> None:
    text = part * (100_000 // len(part))
    assert redacted(f"{text} password=hunter2-hunter2") == f"{text} password={HIDDEN}"


def test_a_secret_of_the_environment_is_hidden_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plainlookingword")
    monkeypatch.setenv("TEVAD_WEBHOOK_URL", "https://chat.example.org/services/T0/B0/hook")
    monkeypatch.setenv("GIT_PASSWORD", "ab")  # too short to be looked for
    text = "signed with plainlookingword, sent to https://chat.example.org/services/T0/B0/hook ab"
    assert redacted(text) == f"signed with {HIDDEN}, sent to {HIDDEN} ab"


@pytest.mark.parametrize("name", ["PGPASSWORD", "MYSQL_PWD", "API_TOKENS", "AWS_ACCESS_KEY_ID"])
def test_a_variable_is_secret_by_a_word_of_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "plainlookingword")
    assert redacted("by plainlookingword") == f"by {HIDDEN}"


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "TOKENIZERS_CACHE", "SECRETARY"])
def test_a_variable_that_only_sounds_secret_is_none(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/srv/site")
    text = "/srv/site/data/site/source/monday-0800.mp4: cut after 31 of 40 frames"
    assert redacted(text) == text
