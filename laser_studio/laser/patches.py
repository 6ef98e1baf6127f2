"""Other forwards for modules for a while: put into the instance, and taken out again without a trace."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from laser_studio.laser.ledger import SavedMeter


class Patch:
    """Another forward for one module, put into the instance and taken out again; a copy of the module gets its own plain forward."""

    def __init__(self, module: nn.Module, call: Callable[..., Tensor]) -> None:
        self._module, self._call, self._before = module, call, module.__dict__.get("forward")
        self._plain: Callable[..., Tensor] = module.forward
        module.__dict__["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._call(self._plain, *args, **kwargs)

    def remove(self) -> None:
        if self._before is None:
            self._module.__dict__.pop("forward", None)
        else:
            self._module.__dict__["forward"] = self._before

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        twin = copy.deepcopy(self._module, memo)
        return types.MethodType(type(twin).forward, twin)


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
