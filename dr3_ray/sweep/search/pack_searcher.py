"""Packs for Tune: those that are known beforehand, then those of what searchers propose."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from ray.tune.search import Searcher

from dr3_ray.sweep.packs.packing import Pack, pack_members
from dr3_ray.sweep.search.proposals import Searches
from dr3_ray.sweep.spec.spec import Config


class PackSearcher(Searcher):
    """A Tune searcher that deals out one pack for every trial: those given, then packs of proposals.

    `sources` says by fingerprint where trials find each data set, `deal` is told of a pack before it is trained, and
    `enrol` of members that were proposed; it returns those that are to be trained. While anything is still to be
    proposed, at most `slots` packs are out at a time, so that none is composed before there is room for it: the later a
    configuration is proposed, the more results are known.
    """

    def __init__(
        self,
        packs: Iterable[Pack],
        sources: Mapping[str, str],
        deal: Callable[[Pack], None],
        searches: Searches,
        enrol: Callable[[dict[str, Config]], dict[str, Config]],
        *,
        limit: int,
        slots: int,
    ) -> None:
        super().__init__()
        self._packs, self._sources, self._deal = deque(packs), sources, deal
        self._searches, self._enrol, self._limit, self._slots = searches, enrol, limit, slots
        self._out: set[str] = set()  # trials that have not ended

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of a trial that trains the next pack."""
        if self._searches.left and len(self._out) >= self._slots:
            return None
        if not self._packs:
            self._propose()
        if not self._packs:
            return None if self._searches.left and self._out else Searcher.FINISHED
        pack = self._packs.popleft()
        self._deal(pack)
        self._out.add(trial_id)
        members = [config | {"dataset": self._sources[config["data_fingerprint"]]} for config in pack.members.values()]
        return {"pack": {"name": pack.name, "members": members, "origin": pack.origin}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note that there is room for another pack; the members' ends are told by the member log."""
        self._out.discard(trial_id)

    def _propose(self) -> None:
        """Put together packs from the problem with most configurations left, or from another if it has none for now."""
        for proposals in sorted(self._searches.proposals, key=lambda proposals: proposals.left, reverse=True):
            share = -(-self._searches.left // self._slots)  # so that no slot is idle
            configurations = min(max(1, self._limit // len(proposals.problem.spec.seeds)), share)
            drawn = (proposals.next() for _ in range(configurations))
            proposed = {member: config for members in drawn if members for member, config in members.items()}
            self._packs.extend(pack_members(self._enrol(proposed), self._limit, 1))
            if self._packs:
                return

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a sweep is taken up from its index and its studies."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, for the same reason."""

    def get_state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take nothing."""

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state, as a MemberLog does."""
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the searcher itself: Tune copies what it is given, and the files of a sweep have one writer."""
        return self
