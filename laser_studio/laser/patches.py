"""Other forwards for modules for a while: put into the instance, and taken out again without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from laser_studio.laser.ledger import SavedMeter


class Patch:
    """Stands before the forward of one module, in the instance, until it is removed; by itself it only hands on.

    Patches of a module act in the order they were made, each on what the one before hands on, and after the module's forward pre-hooks.
    They may be removed in any order, also with a forward of somebody else's among them: who has kept one that was removed keeps one
    that hands on. A copy of the module, or one read from a pickle, has the forward of before all patches.
    """

    first: ClassVar[bool] = False
    """Whether it acts before all that were made before."""
    _below: Callable[..., Tensor] | None  # what is in the instance without this patch and those above it
    _plain: Callable[..., Tensor]  # that, or the forward of the class

    def __init__(self, module: nn.Module) -> None:
        above, below = None, module.__dict__.get("forward")
        while isinstance(below, Patch) and not self.first:
            above, below = below, below._below
        self._module, self._below = module, below
        self._plain = module.forward if above is None else above._plain
        if above is None:
            module.__dict__["forward"] = self
        else:
            above._below = above._plain = self

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._plain(*args, **kwargs)

    def remove(self) -> None:
        """Take it out; harmless where it is."""
        above, here = None, self._module.__dict__.get("forward")
        while isinstance(here, Patch) and here is not self:
            above, here = here, here._below
        if here is self and above is not None:
            above._below, above._plain = self._below, self._plain
        elif here is self and self._below is not None:
            self._module.__dict__["forward"] = self._below
        elif here is self:
            del self._module.__dict__["forward"]
        # Where somebody else's forward still calls it, it does nothing and keeps nothing alive.
        self.__class__, self.__dict__ = Patch, {"_module": self._module, "_below": self._below, "_plain": self._plain}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (getattr, (self._module, "forward")) if self._below is None else (_itself, (self._below,))


class Wrap(Patch):
    """The forward is `call`, which gets the forward that follows, and the arguments."""

    def __init__(self, module: nn.Module, call: Callable[..., Tensor]) -> None:
        self._call = call
        super().__init__(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._call(self._plain, *args, **kwargs)


class Reads(Patch):
    """A layer reads `instead` of its input."""

    def __init__(self, layer: nn.Module, instead: Callable[[Tensor], Tensor]) -> None:
        self._instead = instead
        super().__init__(layer)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._plain(self._instead(args[0] if args else kwargs["input"]))


def _itself(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return forward


class Instead(TorchFunctionMode):
    """While entered, `F.linear` is `product`."""

    def __init__(self, product: Callable[..., Tensor]) -> None:
        super().__init__()
        self._product = product

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (self._product if func is F.linear else func)(*args, **(kwargs or {}))


class Saving:
    """While entered, what is saved is `owner`'s, for the meter if there is one."""

    def __init__(self, meter: SavedMeter | None, owner: str) -> None:
        self._meter, self._owner = meter, owner

    def __enter__(self) -> None:
        if self._meter is not None:
            self._meter.owner = self._owner

    def __exit__(self, *error: object) -> None:
        if self._meter is not None:
            self._meter.owner = ""
