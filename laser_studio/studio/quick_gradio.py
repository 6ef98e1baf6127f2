"""Import Gradio without its stub writing. Imported before anything that imports Gradio.

At each import Gradio parses the source of every component and compares it with a `.pyi` file beside it, to write editor
stubs: about 40 % of its import time, and writes into an installed package. A program that only runs needs none of it.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_MODULE, _FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


class _WithoutStubs(importlib.abc.MetaPathFinder):
    """Finds one module as usual, and puts a function that does nothing in place of the one that writes stubs."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_replace(module: ModuleType) -> None:
            run(module)
            if hasattr(module, _FUNCTION):  # a later Gradio may do without it
                setattr(module, _FUNCTION, lambda *_: None)

        spec.loader.exec_module = run_and_replace  # type: ignore[method-assign]
        return spec


def prepare() -> None:
    """Call before the first import of Gradio; later calls do nothing."""
    # Nothing is reported to anybody, and no newer version is asked for.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if "gradio" not in sys.modules and not any(isinstance(finder, _WithoutStubs) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutStubs())
