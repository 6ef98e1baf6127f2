"""Where tensors live: turns what a user wrote into a `torch.device` that is really there. Bottom layer; used by all that load models."""

from __future__ import annotations

import platform

import torch

from laser_studio.errors import DeviceError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else Apple's MPS, else the CPU.

    Raises `DeviceError` for a name that is unknown and for a device this machine (or this torch) does not have.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device {str(name)[:40]!r} is not known: use auto, cpu, cuda, cuda:0 (or another number) or mps")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise DeviceError(f"{device}: no CUDA device is usable here; use auto or cpu, or install a torch build with CUDA")
        if (device.index or 0) >= count:
            raise DeviceError(f"{device}: there are {count} CUDA devices here, cuda:0 to cuda:{count - 1}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps: Apple's Metal is not available here; use auto or cpu")
    return device


def device_in_words(device: torch.device) -> str:
    """The device's name and, on a CPU, the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({platform.machine()}, {threads} thread{'s' * (threads > 1)})"
