"""What a user installs: the wheel's contents, the dependencies, and the README's front matter."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name

import laser_studio


def requirements(path: Path) -> dict[NormalizedName, Requirement]:
    """The requirements of a file by canonical name, without comments and `-r` lines."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    parsed = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(one.name): one for one in parsed}


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, dict]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def front_matter(repository: Path) -> dict[str, object]:
    return yaml.safe_load((repository / "README.md").read_text().split("---\n")[1])


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def files_below(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in files}


def test_wheel_holds_the_package_and_its_assets(repository: Path, wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if not name.endswith("/")}
    package = {f"laser_studio/{name}" for name in files_below(repository / "laser_studio")}
    assets = {f"laser_studio/_assets/{name}" for name in files_below(repository / "assets")}
    assert assets, "the checkout has no assets"
    assert {name for name in inside if ".dist-info/" not in name} == package | assets


def test_wheel_has_the_command_the_version_and_the_licence(wheel: zipfile.ZipFile) -> None:
    folder = f"laser_studio-{laser_studio.__version__}.dist-info"
    assert "laser-studio = laser_studio.cli:app" in wheel.read(f"{folder}/entry_points.txt").decode()
    assert "LASER Studio contributors" in wheel.read(f"{folder}/licenses/LICENSE").decode()


def test_what_the_studio_runs_with_is_what_the_library_asks_for(repository: Path, project: dict[str, dict]) -> None:
    """requirements.txt names the same packages as pyproject.toml, and allows nothing that the library's ranges refuse."""
    pinned = requirements(repository / "requirements.txt")
    asked = {canonicalize_name(one.name): one for one in map(Requirement, project["project"]["dependencies"])}
    assert pinned.keys() == asked.keys()
    for name, pin in pinned.items():
        (specifier,) = pin.specifier
        assert specifier.operator in ("==", "~="), name
        assert specifier.version in asked[name].specifier, name


def test_pins_that_are_promised(repository: Path, front_matter: dict[str, object], project: dict[str, dict]) -> None:
    pinned = requirements(repository / "requirements.txt")
    assert pinned[canonicalize_name("torch")].specifier == SpecifierSet("==2.13.0")
    assert pinned[canonicalize_name("gradio")].specifier == SpecifierSet(f"=={front_matter['sdk_version']}")
    assert str(front_matter["python_version"]) in SpecifierSet(project["project"]["requires-python"])


def test_a_space_can_read_the_front_matter(front_matter: dict[str, object]) -> None:
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert front_matter["sdk"] == "gradio"
    assert front_matter["app_file"] == "app.py"
    assert {front_matter["colorFrom"], front_matter["colorTo"]} <= colours
    assert len(str(front_matter["short_description"])) <= 60  # longer ones are refused
