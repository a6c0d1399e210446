"""Packs for Tune: those that are known beforehand, then those of what searchers propose."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from ray.tune.search import Searcher

from dr3_ray.sweep.packing import Pack


class PackSearcher(Searcher):
    """Deals out one pack for every Tune trial, and tells `deal` of it.

    `sources` says by fingerprint where trials find each data set.
    """

    def __init__(self, packs: Iterable[Pack], sources: Mapping[str, str], deal: Callable[[Pack], None]) -> None:
        super().__init__()
        self._packs, self._sources, self._deal = deque(packs), sources, deal

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of a trial that trains the next pack."""
        if not self._packs:
            return Searcher.FINISHED
        pack = self._packs.popleft()
        self._deal(pack)
        members = [config | {"dataset": self._sources[config["data_fingerprint"]]} for config in pack.members.values()]
        return {"pack": {"name": pack.name, "members": members}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: what became of each member is told by the member log."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is taken up from its index and its studies."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def get_state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Tune copies what it is given; the files of a sweep have one writer."""
        return self
