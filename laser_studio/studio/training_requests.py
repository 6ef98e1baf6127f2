"""What the training page may ask for, as settings classes: ranges, units and help of its controls stand here once."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_type_hints

from laser_studio.settings import describe, setting, settings
from laser_studio.studio.controls import percent
from laser_studio.studio.registry import StudioError

Task = Literal["sudoku-4x4", "sudoku-6x6", "maze-9x9"]
Variant = Literal["mixer", "attention"]
MAX_STEP = 1_000_000


@settings(StudioError)
class LaserView:
    """What the sliders hold; all of it may change while a run is trained, and acts on the next step."""

    rank: float = setting(
        default=50.0,
        low=1,
        high=100,
        unit="% of D",
        help="Directions of every basis, as a share of its site's width D. Sites grow from there at misses.",
    )
    min_fidelity: float = setting(default=0.9, low=0.5, high=1.0, help="ε: an optimiser step that keeps less of a site's energy is a miss.")
    patience: int = setting(default=3, low=1, high=20, unit="steps", help="Misses in a row before a basis is reset by SVD.")
    growth: int = setting(default=8, low=1, high=64, unit="directions", help="Directions added at a miss.")

    def changes(self) -> dict[str, Any]:
        """The same in the words of `LaserSettings`."""
        return {"rank": percent(self.rank), "min_fidelity": self.min_fidelity, "patience": self.patience, "growth": self.growth}

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in LIVE_CONTROLS}


LIVE_CONTROLS = describe(LaserView)


@settings(StudioError)
class LaserPlan:
    """How a run keeps its activations: chosen before it starts, and the same to its end."""

    keeps: Literal["bases", "whole", "blocks", "budget"] = setting(
        default="bases",
        help="Coefficients in bases that the rule turns and grows, whole places without bases, of those only the ones between blocks "
        "(what lies within is made again in backward: fewest bytes), or what meets a budget best.",
    )
    budget: Literal["cosine", "bytes"] = setting(
        default="cosine", help="At least this mean cosine with the exact gradient, or at most this share of the bytes plain autograd saves."
    )
    cosine: float = setting(default=0.99, low=0.5, high=0.99999, help="Mean cosine with the exact gradient, at least.")
    share: float = setting(
        default=3.0, low=0.5, high=90, unit="%", help="Bytes saved for backward in a step, at most, of plain autograd's."
    )
    recheck: int = setting(
        default=500,
        low=20,
        high=100_000,
        unit="steps",
        help="Distance at which the budget is measured again; it takes as long as many steps.",
    )
    mode: Literal["block", "linear"] = setting(
        default="block",
        help="Block keeps only what stands between stages and rebuilds the rest; linear stores the inputs of linear layers.",
    )
    storage: Literal["exact", "int8", "int4"] = setting(
        default="exact",
        help="Of what is kept: in the forward's numbers, in eight bits, or in four, which suit whole places and are poor in bases.",
    )
    products: Literal["auto", "float", "int8", "bf16"] = setting(  # of `laser.products`, which would bring torch along
        default="auto",
        help="Arithmetic on what is kept in few bits: what is fastest on this machine, the model's floats, bytes, or half precision.",
    )
    on_miss: Literal["stay", "keep_exact"] = setting(
        default="stay", help="What a site keeps in the step after a miss: coefficients all the same, or its input whole."
    )

    def __post_init__(self) -> None:
        if self.keeps in ("whole", "blocks") and self.mode == "linear":
            raise StudioError("whole places stand between the stages of mode block, and mode linear has none: choose block, or bases")

    def changes(self) -> dict[str, Any]:
        """The same in the words of `LaserSettings`."""
        amount = f"cosine={self.cosine:g}" if self.budget == "cosine" else f"bytes={percent(self.share)}"
        told = {name: getattr(self, name) for name in ("mode", "storage", "products", "on_miss", "recheck")}
        whole = self.keeps in ("whole", "blocks")
        return {**told, "whole": whole, "blocks": self.keeps == "blocks", "budget": amount if self.keeps == "budget" else ""}


PLAN = describe(LaserPlan)
PLAN_CHOICES = {name: get_args(kind) for name, kind in get_type_hints(LaserPlan).items() if get_args(kind)}


@settings(StudioError)
class TrainingPageRequest:
    """A training page asks; `page` is a secret of its browser, by which a run knows who may steer it."""

    page: str = setting(help="Secret of the page's browser.")

    def __post_init__(self) -> None:
        if not 8 <= len(self.page) <= 80:
            raise StudioError("this request is not one the studio knows: reload the page")


@settings(StudioError)
class StartRequest(TrainingPageRequest):
    """A new run."""

    task: Task = setting(default="sudoku-4x4", help="Puzzles that are learnt.")
    variant: Variant = setting(default="mixer", help="How tokens are mixed: by an MLP over the cells, or by attention.")
    plan: LaserPlan = setting(default=LaserPlan(), help="How activations are kept, to the run's end.")
    laser: LaserView = setting(default=LaserView(), help="LASER's settings at the start.")


@settings(StudioError)
class TrainCommandRequest(TrainingPageRequest):
    """Something to be done with a run."""

    run: str = setting(default="", help="Name of the run.")
    name: Literal["pause", "resume", "stop", "delete"] = setting(default="pause", help="What to do.")


@settings(StudioError)
class TrainTuneRequest(TrainingPageRequest):
    """Other settings from the next step on."""

    run: str = setting(default="", help="Name of the run.")
    laser: LaserView = setting(default=LaserView(), help="LASER's settings.")


@settings(StudioError)
class TrainModelRequest(TrainingPageRequest):
    """The model of one side as it is now, to be opened in the debugger."""

    run: str = setting(default="", help="Name of the run.")
    side: Literal["laser", "plain"] = setting(default="laser", help="With LASER, or without.")


@settings(StudioError)
class TrainFollowRequest(TrainingPageRequest):
    """How a run stands, and what the page lacks of its figures."""

    run: str = setting(default="", help="Name of the run.")
    block: int = setting(default=0, low=0, high=MAX_STEP, unit="blocks", help="The page holds those before this one.")
    size: int = setting(default=0, low=0, high=MAX_STEP, unit="steps", help="Steps in a block as the page knows it; 0: it has none.")
    notes: int = setting(default=0, low=0, high=MAX_STEP, unit="notes", help="Changes of settings the page knows.")
