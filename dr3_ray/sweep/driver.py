"""The driver of a sweep: it brings together who writes, who proposes, who trains and who shows."""

from collections.abc import Sequence
from functools import partial

from rich.console import Console

from dr3_ray.errors import UserError
from dr3_ray.process import stopping
from dr3_ray.runs.directory import id_of, read_run
from dr3_ray.runs.histories import Histories
from dr3_ray.runs.index import FINAL, Index, longer_twins
from dr3_ray.sweep.packs.limit import sweep_limit
from dr3_ray.sweep.packs.packing import Pack
from dr3_ray.sweep.plan import Plan
from dr3_ray.sweep.resume import packs_in
from dr3_ray.sweep.search.pack_searcher import PackSearcher
from dr3_ray.sweep.search.proposals import Searches
from dr3_ray.sweep.spec.names import option_types
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.sweep.trained import check_begun
from dr3_ray.sweep.trials.callbacks import MemberLog
from dr3_ray.sweep.trials.loggers import Loggers
from dr3_ray.sweep.trials.progress import SweepProgress
from dr3_ray.sweep.trials.ray_trials import Trials


class Driver:
    """One sweep while it trains, in a run directory whose `index` it has open.

    `trials` train the packs that the driver deals out; what they find goes to `log`, which writes the index and the
    `histories` and moves `progress`; `loggers` and the scores of `searches` hear of every row.
    """

    def __init__(
        self,
        spec: SweepSpec,
        asked: dict[str, Config],
        missing: dict[str, Config],
        index: Index,
        searches: Searches,
        trials: Trials,
        console: Console,
    ) -> None:
        """Bring together the parts of a sweep.

        `asked` are the members by which `pack: auto` is chosen, `missing` those of them that have not ended.
        """
        self._spec, self._asked, self._missing = spec, asked, dict(missing)
        self._index, self._searches, self._trials = index, searches, trials
        self._configs = {member: record["config"] for member, record in index.records.items()}
        columns = ("algorithm", "dataset", "seed", *read_run(spec.out)["axes"])
        self._histories = Histories(spec.out, self._configs, columns, option_types())
        self._histories.load(again=missing)
        index.write([member for member in missing if index.status(member) == "failed"], "pending")
        outgrown = longer_twins(index.records.values()).keys()
        self.progress = SweepProgress(
            console,
            {member: record["status"] for member, record in index.records.items() if member not in outgrown},
            {member: config["steps"] for member, config in missing.items()},
            self._ahead,
            sum(config["steps"] for member, config in self._configs.items() if member not in {*missing, *outgrown}),
            self._histories.reached,
        )
        self._loggers = Loggers(spec.log, spec.out, self._configs, self.progress.say)
        self._histories.listeners += [self._loggers, searches.scores, self.progress.best]
        self._log = MemberLog(index, self._histories, self.progress, searches.ended)

    def train(self, trust: bool = False) -> bool:
        """Train the missing members and those that are proposed; return whether the sweep was stopped before its end.

        Raises:
            UserError: there is no room, packs would go on from pickles without `trust`, or Ray is lost.
        """
        try:
            with stopping.leaving(self._interrupt), self.progress:
                self.progress.wait("waiting for Ray")
                self._trials.connect(self._spec)
                self._deal(trust)
        except KeyboardInterrupt:  # a signal, but for a first Ctrl-C once Tune has started
            if what := stopping.lost():
                raise UserError(f"{what}: `{stopping.resuming(self._spec.out)}` goes on") from None
        finally:
            self._close()
        return bool(self._left or self._searches.left)

    def _deal(self, trust: bool) -> None:
        """Have packs trained: those of the plan, then those of proposals."""
        spec, say = self._spec, self.progress.say
        slots = self._trials.wait(spec, say)
        sources = self._share()

        def limit(begun: Sequence[Pack]) -> int:
            packs = [name for pack in begun for name in (pack.name, pack.origin) if name]
            if spec.checkpoint_every != 0:
                check_begun(spec.checkpoints, id_of(spec.out), packs, trust)
            return sweep_limit(spec, self._asked, sources, slots, say)

        plan = Plan.of(
            self._asked, self._missing, self._index.records, slots, limit, partial(packs_in, spec.checkpoints)
        )
        self._tell_of(plan)
        room = spec.concurrent or slots
        known = len(plan.packs)
        self.progress.wait(f"building {min(known, room)} of {known} packs" if known else "building the first packs")
        packs = PackSearcher(
            plan.packs, sources, self._log.expect, self._searches, self._enrol, limit=plan.limit, slots=room
        )
        self._trials.train(spec, packs, self._log, say)

    def _tell_of(self, plan: Plan) -> None:
        """Say how many members go on from shorter ones, or what keeps them from it."""
        if longer := sum(len(pack.members) for pack in plan.longer):
            self.progress.say(f"{longer} members go on from where shorter ones were left")
        for reason in plan.anew:
            self.progress.say(reason)
        for pack in plan.longer:
            self.progress.skip(pack.members, pack.made)
            self.progress.advance(pack.members, pack.made)

    def _share(self) -> dict[str, str]:
        """Return where trials find each data set, by its fingerprint."""
        about = [*self._missing.values(), *(proposals.problem.about for proposals in self._searches.proposals)]
        datasets = {config["data_fingerprint"]: config["dataset"] for config in about}
        environments = {config["environment"] for config in about if config["environment"]}
        return self._trials.share(self._spec, datasets, environments, self.progress.say)

    def _enrol(self, proposed: dict[str, Config]) -> dict[str, Config]:
        """Write down the members that a search proposes, and return those to be trained."""
        self._index.write([member for member in proposed if member not in self._configs], "pending", configs=proposed)
        fresh = {member: config for member, config in proposed.items() if self._index.status(member) not in FINAL}
        self._configs.update(proposed)
        self._missing.update(fresh)
        self.progress.add({member: config["steps"] for member, config in fresh.items()}, self._ahead)
        return fresh

    def _close(self) -> None:
        """Write index and histories, and let the loggers end.

        Raises:
            OSError: the index could not be written.
        """
        try:
            self._log.flush()
            self._interrupt()
        finally:
            self._loggers.close()
        if self._log.trouble:
            raise self._log.trouble

    def _interrupt(self) -> None:
        """Write down that running members are not running any more."""
        running = [member for member in self._left if self._index.status(member) == "running"]
        self._index.write(running, "pending", error="interrupted")

    @property
    def _left(self) -> list[str]:
        """The members that are still to be trained."""
        return [member for member in self._missing if self._index.status(member) in ("pending", "running")]

    @property
    def _ahead(self) -> int:
        """Gradient updates of the members that a search has still to propose."""
        return self._searches.left * self._spec.steps * len(self._spec.seeds)
