"""Names become connectors, and only the one asked for is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sourcebus.connectors import available, connector_from, create, register
from sourcebus.connectors.filesystem import FilesystemConnector
from sourcebus.errors import InvalidInput


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that declares three connectors: a good one, one that cannot be imported, a bystander."""
    info = tmp_path / "strangers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sourcebus.connectors]\n"
        "stranger = stranger_good:make\nstranger_broken = stranger_broken:make\nbystander = stranger_bystander:make\n"
    )
    (tmp_path / "stranger_good.py").write_text(
        "from sourcebus.connectors import connector_from\n"
        "def make(config, secret):\n    return connector_from(list=lambda: [config['page']], extract=str, name='stranger')\n"
    )
    (tmp_path / "stranger_broken.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "stranger_bystander.py").write_text("raise SystemExit('imported without need')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def test_an_installed_connector_is_found_and_only_it_is_imported(installed: Path) -> None:
    assert {"stranger", "stranger_broken", "bystander"} <= {*available()}
    assert "stranger_good" not in sys.modules
    connector = create("stranger", {"page": "p"}, None)
    assert connector.name == "stranger"
    assert "stranger_bystander" not in sys.modules


def test_one_that_cannot_be_imported_says_why(installed: Path) -> None:
    with pytest.raises(InvalidInput, match="no_such_module_anywhere") as refused:
        create("stranger_broken", {}, None)
    assert "stranger_broken:make" in refused.value.fix


def test_one_whose_extra_is_not_installed_says_how_to_install_it(installed: Path) -> None:
    with (installed / "strangers-1.0.dist-info" / "METADATA").open("a") as metadata:
        metadata.write("Provides-Extra: stranger_broken\n")
    with pytest.raises(InvalidInput) as refused:
        create("stranger_broken", {}, None)
    assert refused.value.fix == "pip install 'strangers[stranger_broken]'"


def test_an_unknown_name_lists_the_known_ones(installed: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        create("sharepiont", {}, None)
    assert refused.value.field == "connector"
    assert "stranger" in refused.value.fix


def test_a_registered_one_needs_no_installation(tmp_path: Path) -> None:
    register("test_class", FilesystemConnector)
    register("test_instance", connector_from(list=list, extract=str, name="mine"))
    register("test_function", lambda config, secret: connector_from(list=list, extract=str, name=f"{config['n']}{secret}"))
    assert create("test_class", {"root": str(tmp_path)}, None).name == "filesystem"
    assert create("test_instance", {}, None).name == "mine"
    assert create("test_function", {"n": 1}, "s").name == "1s"
    assert {"test_class", "test_instance", "test_function"} <= {*available()}


def test_a_ready_instance_takes_no_config() -> None:
    register("test_instance", connector_from(list=list, extract=str))
    with pytest.raises(InvalidInput, match=r"config\.site"):
        create("test_instance", {"site": "x"}, None)
