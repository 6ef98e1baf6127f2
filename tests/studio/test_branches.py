"""Branches and comparisons through the channel: runs of their own in one place, links that open them, bounds."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from laser_studio.debugger import compare, first_divergence
from laser_studio.studio.channel import Channel
from laser_studio.studio.family import MOST_BRANCHES
from laser_studio.studio.links import read_query
from laser_studio.studio.registry import Registry

LENGTH = 12  # of the small model
ZERO = {"kind": "state", "state": "L"}


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for budget in ("BRING_SECONDS", "CURVE_SECONDS"):
        monkeypatch.setattr(f"laser_studio.studio.inquiries.comparing.{budget}", 60.0)


def opened_at(channel: Channel, step: int, query: str = "") -> str:
    run = str(channel.open({"query": query})["run"])
    reply = channel.advance({"run": run, "at": 0, "steps": step})
    assert reply["frame"]["index"] == step
    return run


def branched(channel: Channel, run: str, at: int, what: dict[str, Any], **options: Any) -> tuple[str, dict[str, Any]]:
    reply = channel.inquire({"name": "branches.add", "run": run, "at": at, "what": [what], **options})
    assert "error" not in reply, reply
    return reply["made"], reply["branches"]


def session(channel: Channel, run: str) -> Any:
    return channel.registry.get(run).item.session


def test_a_branch_is_a_run_of_its_own_that_the_page_can_open(channel: Channel) -> None:
    main = opened_at(channel, 10)
    made, told = branched(channel, main, 7, ZERO)
    assert [member["name"] for member in told["list"]] == ["main", "z_L = 0 @ 7"] and told["here"] == main
    branch = channel.open({"query": "", "replaces": main, "resume": made})
    assert branch["run"] == made and branch["frame"]["index"] == 7 and branch["resumed"] and branch["branches"]["here"] == made
    reply = channel.advance({"run": made, "at": 7, "steps": 5})
    assert reply["frame"]["index"] == 12
    oracle = session(channel, main).branch(7, session(channel, made).course[0].what)
    oracle.seek(12)
    assert list(oracle.frames) == list(session(channel, made).frames)
    here = reply["branches"]["list"][1]
    assert (here["at"], here["parent"], here["head"], here["parted"]["model"]) == (7, "main", 12, 8)
    assert here["text"] == ["z_L set to zero, once, after step 7"]
    # The main run is where it was, and can be opened again.
    back = channel.open({"query": "", "replaces": made, "resume": main})
    assert back["run"] == main and back["frame"]["index"] == 7 and back["head"] == 10


def test_branches_are_named_deleted_and_counted(channel: Channel) -> None:
    main = opened_at(channel, 6)
    ask = {"run": main, "at": 6}
    first, _ = branched(channel, main, 6, ZERO)
    second, told = branched(channel, main, 6, ZERO)
    assert [member["name"] for member in told["list"]] == ["main", "z_L = 0 @ 6", "z_L = 0 @ 6 (2)"]
    assert len({member["colour"] for member in told["list"]}) == 3
    reply = channel.inquire({**ask, "name": "branches.rename", "branch": second, "title": "  the\tother "})
    assert reply["branches"]["list"][2]["name"] == "the other"
    for title in ("", "x" * 41, "bell\x07"):
        assert "printable" in channel.inquire({**ask, "name": "branches.rename", "branch": second, "title": title})["error"]
    grandchild, _ = branched(channel, first, 6, {"kind": "edit", "row": 1, "column": 1, "value": 2})
    assert channel.open({"query": "", "replaces": main, "resume": grandchild})["branches"]["list"][3]["parent"] == "z_L = 0 @ 6"
    assert channel.registry.get(grandchild).item.course[0].what.kind == "state"
    closed = session(channel, first)
    reply = channel.inquire({**ask, "name": "branches.delete", "branch": first})
    assert [member["parent"] for member in reply["branches"]["list"]] == [None, "main", "main"]
    assert closed.kept.total == 0 and channel.open({"resume": first})["resumed"] is False
    assert "stays" in channel.inquire({"run": grandchild, "at": 6, "name": "branches.delete", "branch": main})["error"]
    assert (
        "open another one first" in channel.inquire({"run": grandchild, "at": 6, "name": "branches.delete", "branch": grandchild})["error"]
    )
    assert "no such branch" in channel.inquire({**ask, "name": "branches.delete", "branch": "none"})["error"]


def test_no_more_than_a_page_may_hold(channel: Channel) -> None:
    main = opened_at(channel, 4)
    for _ in range(MOST_BRANCHES):
        last, _ = branched(channel, main, 4, ZERO)
    reply = channel.inquire({"name": "branches.add", "run": main, "at": 4, "what": [ZERO]})
    assert "delete one first" in reply["error"]
    assert len(channel.registry) == 1  # all in one place
    channel.inquire({"run": main, "at": 4, "name": "branches.delete", "branch": last})
    branched(channel, main, 4, ZERO)
    sessions = [session(channel, member["id"]) for member in channel.advance({"run": main, "at": 4})["branches"]["list"]]
    channel.close({"run": last})  # gone already: nothing happens
    assert len(channel.registry) == 1
    channel.close({"run": main})
    assert len(channel.registry) == 0 and all(one.kept.total == 0 for one in sessions)
    assert channel.inquire({"name": "branches.add", "run": main, "at": 4, "what": [ZERO]})["expired"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ([], "1 to 4"),
        ([ZERO] * 5, "1 to 4"),
        ([{"kind": "explode"}], "no intervention"),
        ([{"kind": "scale", "site": "nowhere"}], "no site is called"),
        ([{"kind": "scale", "site": "layers.0.mlp.down_proj", "index": 999}], "choose one from"),
        (["zero"], "what"),
        ("zero", "what"),
        ([{"kind": "edit", "row": 5, "column": 1, "value": 1}], "no cell R5C1"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(channel: Channel, what: Any, message: str) -> None:
    main = opened_at(channel, 8)
    before = list(session(channel, main).frames)
    reply = channel.inquire({"name": "branches.add", "run": main, "at": 8, "what": what})
    assert message in reply["error"] and not reply["expired"]
    assert list(session(channel, main).frames) == before
    assert len(channel.advance({"run": main, "at": 8}).get("branches", {"list": [0]})["list"]) == 1


def test_settings_changed_before_a_branch_go_with_it_and_later_ones_are_its_own(channel: Channel) -> None:
    main = opened_at(channel, 5)
    channel.tune({"run": main, "at": 5, "changes": {"rank": 50, "beyond": True}})
    channel.advance({"run": main, "at": 5, "steps": 5})
    made, _ = branched(channel, main, 8, ZERO)
    reply = channel.tune({"run": made, "at": 8, "changes": {"min_fidelity": 0.6}})
    assert reply["settings"]["rank"] == 50 and reply["options"]["beyond"] and "change=8" in reply["link"] and "change=5" in reply["link"]
    assert "change=8" not in channel.advance({"run": main, "at": 8})["link"]
    early, _ = branched(channel, main, 3, ZERO)
    assert channel.advance({"run": early, "at": 3})["settings"]["rank"] == 25


def test_a_link_opens_the_branch_beside_its_parent(channel: Channel, catalogue: Any) -> None:
    main = opened_at(channel, 9)
    edit = {"kind": "edit", "row": 1, "column": 1, "value": 3}
    made, _ = branched(channel, main, 4, {"kind": "reconstruct", "rank": 3})
    channel.advance({"run": made, "at": 4, "steps": 3})
    second, _ = branched(channel, made, 7, edit)
    reply = channel.advance({"run": second, "at": 7, "steps": 4})
    assert parse_qs(reply["link"])["branch"] == ['4~{"kind":"reconstruct","rank":3}', '7~{"kind":"edit","row":1,"column":1,"value":3}']
    other = Channel(catalogue, Registry(capacity=4))
    opened = other.open({"query": reply["link"]})
    assert opened["target"] == 11 and opened["notices"] == [] and opened["puzzle"]["cells"][0] == 3
    again = other.command({"run": opened["run"], "at": 0, "name": "seek", "value": 11})
    assert session(other, opened["run"]).frames[11] == session(channel, second).frames[11] and again["link"] == reply["link"]
    names = [member["name"] for member in again["branches"]["list"]]
    assert names == ["main", "R1C1 = 3 @ 7"] and len(other.registry) == 1
    other.registry.close_all()


def test_what_is_wrong_with_a_branch_of_a_link_is_named_and_left_out(channel: Channel) -> None:
    texts = ["x", "4~[]", "4~{", '4~{"kind":{}}', "4~" + "[" * 1_200, '99999999~{"kind":"state"}', "4~" + json.dumps({"kind": "x" * 1_600})]
    view = read_query(urlencode([("branch", text) for text in texts]))
    assert view.branches == () and len(view.notices) == len(texts)
    good = '4~{"kind":"state"}'
    query = urlencode([("branch", text) for text in (good, '4~{"kind":"state","state":"Q"}', '5~{"kind":"scale","site":"none"}')])
    opened = channel.open({"query": query})
    assert len(opened["notices"]) == 2 and "left out" in opened["notices"][0] and "no site is called" in opened["notices"][1]
    assert len(session(channel, opened["run"]).course) == 1
    assert len(read_query(urlencode([("branch", good)] * 40)).branches) == 16


def test_a_comparison_is_that_of_the_engine_at_the_step_of_the_page(channel: Channel) -> None:
    main = opened_at(channel, LENGTH)
    made, _ = branched(channel, main, 4, {"kind": "reconstruct", "rank": 2})
    key = f"branch:{made}"
    offers = channel.inquire({"name": "compare.offers", "run": main, "at": 12})
    assert [group[0] for group in offers["groups"]] == ["branches", "settings of the tracker", "models of this task", "puzzles"]
    assert offers["groups"][0][1] == [[key, "rank 2 @ 4"]] and ["model:again", "again"] in offers["groups"][2][1]
    assert channel.inquire({"name": "compare.choose", "run": main, "at": 12, "key": key})["title"] == "rank 2 @ 4"
    for at in (12, 3, 9):
        told = channel.inquire({"name": "compare.at", "run": main, "at": at, "key": key, "curve": True})
        a, b = session(channel, main), session(channel, made)
        found, parted = compare(a, b, at), first_divergence(a, b)
        assert told["index"] == at and told["cells"] == found.cells and told["kl"] == found.kl and a.frame.index == b.frame.index == at
        assert told["parted"] == {"model": parted.model, "answer": parted.answer, "tracker": parted.tracker, "checked": parted.checked}
        assert told["answers"] == [a.frame.answer, b.frame.answer]
        for name, site in told["sites"].items():
            assert site["difference"] == found.sites[name].difference
            assert site["angles"] == (None if (angles := found.sites[name].angles) is None else [angles.largest, angles.mean])
    curve = told["curve"]
    assert curve["whole"] and sorted(point[0] for point in curve["points"]) == [0, 3, 5, 6, 9, 12]
    for step, kl, *halting in curve["points"]:
        assert kl == compare(a, b, step).kl and halting == [session.frames[step].halt_probability for session in (a, b)]
    more = channel.inquire({"name": "compare.at", "run": main, "at": 9, "key": key, "version": curve["version"], "points": 6})
    assert more["curve"]["points"] == [] and more["curve"]["start"] == 6
    # Settings changed: what was found of the dropped future is found anew.
    channel.tune({"run": main, "at": 5, "changes": {"rank": 60}})
    anew = channel.inquire({"name": "compare.at", "run": main, "at": 5, "key": key, "version": curve["version"], "points": 6})
    assert anew["curve"]["version"] != curve["version"] and anew["parted"]["checked"] == 5


@pytest.mark.parametrize("kind", ["model", "puzzle", "preset", "defaults"])
def test_others_are_made_for_the_comparison_and_freed_after_it(channel: Channel, kind: str) -> None:
    main = opened_at(channel, 7)
    ask: dict[str, Any] = {"run": main, "at": 7}
    groups = dict(channel.inquire({**ask, "name": "compare.offers"})["groups"])
    keys = {
        "model": groups["models of this task"][0][0],
        "puzzle": groups["puzzles"][0][0],
        "preset": "preset:aggressive",
        "defaults": "preset:defaults",
    }
    key = keys[kind]
    chosen = channel.inquire({**ask, "name": "compare.choose", "key": key})
    told = channel.inquire({**ask, "name": "compare.at", "key": key})
    family = next(part for part in channel.registry.get(main).item.parts if hasattr(part, "beside"))
    other = family.beside.other.session
    assert told["index"] == other.frame.index == 7 and chosen["key"] == key
    if kind == "puzzle":
        assert chosen["puzzle"]["cells"] != chosen["mine"]["cells"] and told["parted"]["model"] is not None
    else:
        assert told["parted"]["model"] is None and told["kl"] == 0
        assert (told["parted"]["tracker"] is not None) == (kind == "preset")
    assert len(channel.registry) == 1
    assert channel.inquire({**ask, "name": "compare.choose", "key": ""}) == {"key": ""}
    assert other.kept.total == 0 and family.beside is None


def test_what_cannot_be_compared_is_told(channel: Channel) -> None:
    main = opened_at(channel, 3)
    for key in ("", "branch:none", "model:none", "puzzle:none", "preset:none", "x" * 200, f"branch:{main}"):
        assert "error" in channel.inquire({"name": "compare.at", "run": main, "at": 3, "key": key})


def test_a_run_that_ends_earlier_is_compared_at_its_end(channel: Channel) -> None:
    main = opened_at(channel, LENGTH)
    made, _ = branched(channel, main, 4, {"kind": "cycles", "level": "H", "change": -1, "every": True})
    told = channel.inquire({"name": "compare.at", "run": main, "at": LENGTH, "key": f"branch:{made}"})
    assert told["ends"] and told["reached"] == told["index"] == session(channel, made).length < LENGTH


def test_a_branch_as_a_script_gives_its_frame(channel: Channel) -> None:
    main = opened_at(channel, 9)
    made, _ = branched(channel, main, 4, {"kind": "scale", "site": "layers.0.mlp.down_proj", "index": 1, "factor": 0.5})
    channel.advance({"run": made, "at": 4, "steps": 5})
    script = channel.python({"run": made, "at": 9})["python"]
    space: dict[str, Any] = {}
    exec(script, space)
    assert space["frame"] == session(channel, made).frames[9]
