"""The training page before any browser has it: ids, controls from the settings, plain HTML, and no figure that nobody measured."""

from __future__ import annotations

import re

import pytest

from laser_studio.assets import asset_path
from laser_studio.studio import layout, train_page
from laser_studio.studio.training_requests import LIVE_CONTROLS, PLAN, PLAN_CHOICES
from tests.studio.test_page import Ids


def test_ids_are_there_once_and_the_script_asks_for_no_others() -> None:
    ids = Ids(train_page.PAGE).found
    assert len(ids) == len(set(ids))
    known = {*ids, *Ids(layout.head()).found}
    own = "\n".join(asset_path("js", name).read_text(encoding="utf-8") for name in train_page.SCRIPTS if name.startswith("train"))
    asked = set(re.findall(r"\$\(\"([\w-]+)\"\)", own))
    assert {"train-start", "loss-plot", "bytes-of"} <= asked <= known


def test_the_scripts_share_one_scope_without_a_clash() -> None:
    names = re.findall(r"(?m)^(?:async )?(?:const|let|class|function) +([A-Za-z_]\w*)", train_page.script())
    assert names and not {name for name in names if names.count(name) > 1}


def test_sliders_have_the_ranges_of_the_settings() -> None:
    for name, info in LIVE_CONTROLS.items():
        found = re.findall(
            rf'id="train-{name.replace("_", "-")}(?:-number)?" min="([^"]+)" max="([^"]+)" step="[^"]+" value="([^"]+)"', train_page.PAGE
        )
        assert len(found) == 2 and {tuple(map(float, one)) for one in found} == {(info.low, info.high, float(info.default))}
        assert info.help in train_page.PAGE


def test_the_plan_has_the_choices_and_ranges_of_the_settings() -> None:
    for name, info in PLAN.items():
        identifier = f"train-{name.replace('_', '-')}"
        assert info.help in train_page.PAGE and info.help.count(".") - len(re.findall(r"\d\.\d", info.help)) == 1, "one sentence"
        if name in PLAN_CHOICES:
            [options] = re.findall(rf'<select id="{identifier}">(.*?)</select>', train_page.PAGE)
            assert re.findall(r'value="(\w+)"', options) == list(PLAN_CHOICES[name])
            assert re.findall(r'value="(\w+)" selected', options) == [info.default]
        else:
            [bounds] = re.findall(rf'id="{identifier}" min="([^"]+)" max="([^"]+)" step="any" value="([^"]+)"', train_page.PAGE)
            assert tuple(map(float, bounds)) == (info.low, info.high, float(info.default))


def test_the_page_is_plain_text_to_gradios_template_and_shows_no_figure_of_its_own() -> None:
    assert not any(trap in train_page.PAGE for trap in ("${", "`", "{{", "<script", "\\"))
    shown = re.sub(r"<[^>]+>", " ", train_page.PAGE)
    assert not re.findall(r"\d+\.\d+|\d+ ?%", shown)


@pytest.mark.parametrize("text", [train_page.script(), train_page.PAGE])
def test_nothing_points_to_another_host(text: str) -> None:
    addresses = re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]{2,}", re.sub(r"(?m)^\s*//.*$", "", text))
    assert set(addresses) <= {"http://www.w3.org"}
