"""The settings and secrets of the connector git."""

from __future__ import annotations

from pathlib import Path

import pytest

from sourcebus.connectors.git import GitConnector
from sourcebus.errors import InvalidInput


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("url", {}),
        ("url", {"url": 7}),
        ("url", {"url": "git@host:group/project.git"}),
        ("url", {"url": "ssh://git@host/project.git"}),
        ("url", {"url": "ext::sh -c touch% /tmp/pwned"}),
        ("url", {"url": "--upload-pack=touch /tmp/pwned"}),
        ("url", {"url": "https://user:secret@host/a.git"}),
        ("url", {"url": "https://token@host/a.git"}),
        ("url", {"url": "https://host/a.git?x=1"}),
        ("url", {"url": "https://host/a b"}),
        ("url", {"url": "https://host:99999/a"}),
        ("url", {"url": "https:///a"}),
        ("url", {"url": "ssh://-oProxyCommand=touch/a", "protocols": ["ssh"]}),
        ("branch", {"branch": "--upload-pack=x"}),
        ("branch", {"branch": "a..b"}),
        ("branch", {"branch": "a b"}),
        ("branch", {"branch": "a:refs/heads/x"}),
        ("branch", {"branch": "a*"}),
        ("branch", {"branch": ""}),
        ("branch", {"branch": "refs/heads/"}),
        ("branch", {"branch": "x.lock"}),
        ("include", {"include": "*.md"}),
        ("exclude", {"exclude": ["[z-a]"]}),
        ("protocols", {"protocols": ["ext"]}),
        ("max_bytes", {"max_bytes": 0}),
        ("timeout_s", {"timeout_s": "soon"}),
        ("cache_dir", {"cache_dir": "relative"}),
        ("brunch", {"brunch": "main"}),
    ],
)
def test_a_setting_that_is_wrong_is_named(field: str, config: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        GitConnector.create({"url": "https://host/a.git"} | config if field != "url" or config else config, None)
    assert refused.value.field == f"config.{field}"
    assert "secret@" not in str(refused.value)
    assert "token@" not in str(refused.value)


@pytest.mark.parametrize(
    "secret", ['{"password": "hidden"}', '{"user": "a:b", "token": "hidden"}', '{"token": "hid\\nden"}', '{"tokn": "hidden"}']
)
def test_a_secret_that_is_wrong_is_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        GitConnector.create({"url": "https://host/a.git"}, secret)
    assert refused.value.field == "secret"
    assert "hid" not in str(refused.value)


def test_creating_one_talks_to_nobody(tmp_path: Path) -> None:
    connector = GitConnector.create({"url": "https://host.invalid/a.git", "cache_dir": str(tmp_path / "none")}, "token")
    connector.close()
    assert not (tmp_path / "none").exists()
