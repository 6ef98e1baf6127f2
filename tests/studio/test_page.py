"""The page before any browser has it: ids, what is sent, and the rule that no number on it is made up."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from laser_studio.assets import asset_path
from laser_studio.settings import SettingInfo
from laser_studio.studio import panels, panels_branches, panels_deeper, panels_models, panels_travel, quick_gradio
from laser_studio.studio.catalogue import Catalogue
from laser_studio.studio.channel import Channel
from laser_studio.studio.links import CONTROLS

quick_gradio.prepare()
from laser_studio.studio import layout  # noqa: E402 - Gradio must come after the line above

FIXED_IDS = [
    "play", "pause", "step", "back", "restart", "timeline", "board", "site-map", "model", "puzzle", "rank", "min-fidelity", "patience",
    "speed", "fidelity-panel", "basis-panel", "memory-panel", "events-panel", "share-link", "status",
]  # fmt: skip
HTML = {name: text for name, text in vars(panels).items() if name.isupper() and isinstance(text, str)}
# What stands within a panel of `panels` is there already.
HTML |= {"SOLVE": panels_deeper.SOLVE, "COMPARE": panels_branches.COMPARE}
HTML |= {"INSIDE": panels_travel.INSIDE, "TRAVEL": panels_travel.TRANSPORT, "MODELS": panels_models.OPENER}


class Ids(HTMLParser):
    """Collects the ids of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, _: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if name == "id" and value]


@pytest.fixture(scope="module")
def config(small_checkpoint: Any) -> dict[str, Any]:
    from laser_studio.studio.catalogue import ModelEntry

    catalogue = Catalogue([ModelEntry("small", small_checkpoint, "small", ("sudoku", 4))], device="cpu")
    page = layout.build_page(catalogue, Channel(catalogue))  # either side of the process boundary will do
    return dict(page.get_config_file())


def test_every_fixed_id_is_there_once(config: dict[str, Any]) -> None:
    ids = [component["props"].get("elem_id") for component in config["components"]]
    for text in HTML.values():
        ids += Ids(text).found
    ids = [name for name in ids if name]
    assert {name: ids.count(name) for name in FIXED_IDS} == dict.fromkeys(FIXED_IDS, 1)
    assert len(ids) == len(set(ids))


def test_the_script_asks_only_for_ids_that_are_there(config: dict[str, Any]) -> None:
    there = {component["props"].get("elem_id") for component in config["components"]} | {
        name for text in HTML.values() for name in Ids(text).found
    }
    there |= set(Ids(layout.head()).found)
    asked = set(re.findall(r"\$\(\"([\w-]+)\"\)", layout.script()))
    assert asked and asked <= there


def test_the_scripts_share_one_scope_without_a_clash() -> None:
    names = re.findall(r"(?m)^(?:async )?(?:const|let|class|function) +([A-Za-z_]\w*)", layout.script())
    assert names and not {name for name in names if names.count(name) > 1}


def test_controls_have_the_ranges_of_the_settings(config: dict[str, Any]) -> None:
    props = {component["props"].get("elem_id"): component["props"] for component in config["components"]}
    shown = {name: info for name, info in CONTROLS.items() if name.replace("_", "-") in props}
    assert {"rank", "min_fidelity", "patience", "refresh"} <= set(shown)
    for name, info in shown.items():
        assert isinstance(info, SettingInfo)
        control = props[name.replace("_", "-")]
        assert control["value"] == info.default
        if info.low is not None:
            assert (control["minimum"], control["maximum"]) == (info.low, info.high)


def test_no_listener_runs_on_the_server(config: dict[str, Any]) -> None:
    assert config["dependencies"]
    assert not any(dependency["backend_fn"] for dependency in config["dependencies"])


@pytest.mark.parametrize("name", HTML)
def test_panels_are_plain_text_to_gradios_template(name: str) -> None:
    assert not any(trap in HTML[name] for trap in ("${", "`", "{{", "<script", "\\"))


@pytest.mark.parametrize("text", [layout.script(), layout.head(), *HTML.values()])
def test_nothing_points_to_another_host(text: str) -> None:
    addresses = re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]{2,}", re.sub(r"(?m)^\s*//.*$", "", text))
    assert set(addresses) <= {"http://www.w3.org"}  # the name of SVG, which is not fetched
    assert "@import" not in text and "@font-face" not in text


def test_no_number_is_random_or_made_up() -> None:
    """Drawing code has no source of numbers but the replies: no randomness, no clocks, and no text that looks like a figure."""
    for path in sorted(asset_path("js").glob("*.js")):
        code = path.read_text(encoding="utf-8")
        assert "Math.random" not in code and "Date." not in code and "setInterval" not in code
        if path.name not in ("player.js", "studio.js", "watched.js"):
            assert "performance.now" not in code
    shown = " ".join(re.sub(r"<[^>]+>|data-tip=\"[^\"]*\"", " ", text) for name, text in HTML.items() if name != "HUB")
    numbers = set(re.findall(r"\d+\.\d+|\d+ ?%", shown))
    assert numbers <= {"0.80", "0.9999"}  # the ends of the colour scale, before the first frame says them


def test_the_theme_fetches_no_font() -> None:
    theme = layout.theme()
    assert theme._stylesheets == []
