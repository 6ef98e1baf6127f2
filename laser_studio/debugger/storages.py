"""What several things hold of memory, each storage counted once however many hold it, kept up to date as they come and go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from torch import Tensor


def storage_of(tensor: Tensor) -> int:
    """What tells storages apart; good while the tensor lives."""
    return tensor.untyped_storage().data_ptr()


def storages_of(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage of some tensors."""
    return {storage_of(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}


class Storages:
    """Storages with the number of their holders. A holder gives what it holds when it comes, and the same when it goes."""

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}
        self._holders: dict[int, int] = {}
        self.nbytes = 0

    def add(self, held: Mapping[int, int]) -> None:
        """One more holder, of these storages and bytes."""
        for place, nbytes in held.items():
            if place not in self._bytes:
                self._bytes[place], self._holders[place] = nbytes, 0
                self.nbytes += nbytes
            self._holders[place] += 1

    def remove(self, held: Mapping[int, int]) -> None:
        """A holder of these goes."""
        for place in held:
            self._holders[place] -= 1
            if not self._holders[place]:
                del self._holders[place]
                self.nbytes -= self._bytes.pop(place)

    def beside(self, others: Collection[int]) -> int:
        """Bytes of the storages that are not among `others`, which are all different."""
        return self.nbytes - sum(self._bytes.get(place, 0) for place in others)
