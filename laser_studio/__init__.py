"""LASER Studio: a visual debugger for recursive reasoning models.

`laser_studio.watch(module)` puts trackers on a module of your own; see `laser_studio.debugger.watching`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laser_studio.debugger.watching import watch

__version__ = "0.1.0"
__all__ = ["__version__", "watch"]


def __getattr__(name: str) -> Any:
    if name == "watch":  # on demand, because torch comes with it
        from laser_studio.debugger.watching import watch

        return watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
