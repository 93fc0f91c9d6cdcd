"""A source's secret, read: one text or named ones, several values while one is replaced, and never repeated."""

from __future__ import annotations

import json

import pytest

from sourcebus.connectors.credentials import Credentials
from sourcebus.errors import InvalidInput

NAMES = ("token", "webhook")


def test_a_text_is_the_first_of_the_names() -> None:
    read = Credentials.parse("plain", NAMES)
    assert (read.one("token"), read.all("token"), read.one("webhook"), read.all("webhook")) == ("plain", ("plain",), None, ())


def test_named_ones_have_one_value_or_several_newest_first() -> None:
    read = Credentials.parse(' {"token": "t", "webhook": ["new", "old"]}', NAMES)
    assert (read.one("token"), read.one("webhook"), read.all("webhook")) == ("t", "new", ("new", "old"))


@pytest.mark.parametrize("secret", [None, ""])
def test_none_is_none(secret: str | None) -> None:
    assert Credentials.parse(secret, NAMES).all("token") == ()


@pytest.mark.parametrize(
    "secret",
    [
        '{"token": "hush"',
        '{"hush": "hush"}',
        '{"token": ""}',
        '{"token": []}',
        '{"token": ["hush", ""]}',
        '{"token": ["hush", 7]}',
        '{"token": {"a": "hush"}}',
        '{"token": null}',
        "{" * 100_000,
        '{"token": ' + "[" * 100_000,
    ],
)
def test_what_makes_no_sense_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Credentials.parse(secret, NAMES)
    assert refused.value.field == "secret"
    assert "hush" not in str(refused.value).replace("names 'hush'", "")


def test_its_text_shows_no_value() -> None:
    assert "hush" not in repr(Credentials.parse(json.dumps({"token": "hush"}), NAMES))
