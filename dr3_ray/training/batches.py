"""Minibatches for K members: which rows of the data, with which noise, and as the networks take them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from fractions import Fraction
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.data.mixing import Mixing, Slots, largest_remainders
from dr3_ray.data.mixture_names import FORM
from dr3_ray.data.n_step import FOLLOWED, Rows, gather_n_step
from dr3_ray.data.read_ahead import ReadAhead, warn_of_size
from dr3_ray.data.reader import Dataset
from dr3_ray.data.resident import Resident, on_host, resident
from dr3_ray.data.sampler import CountingSampler, Draws, Sampler, best_of_each, counted, sizes_of
from dr3_ray.data.window import Window
from dr3_ray.errors import UserError
from dr3_ray.networks.pixels import crop_images
from dr3_ray.observations import each_part
from dr3_ray.training.hindsight import NOISE, Hindsight
from dr3_ray.training.normalization import normalized
from dr3_ray.training.returns import COLUMN, Returns
from dr3_ray.training.share import ALONE, Share
from dr3_ray.types import Noise, Transition

PROBE_ROWS = 2048
GATHERED_ROWS = 512  # at a time: enough to make the cost of a gather small, few enough to stay in a CPU's cache
ON_A_GPU = 2**28  # bytes that are gathered at a time, so that they leave room
ROW_BYTES = 256  # of a row of data that are no data set, for the size of a window's blocks
DRAWN = 64  # bytes that take a random number while it is drawn there
RECORDED = ("next_actions", "next_actions_valid")  # of the probe, where the data have them
CROPS = {"observations": "crop", "next_observations": "next_crop"}  # the noise that moves the images of a column


def check_shares(data: Rows, members: Sequence[Any]) -> list[list[list[int]]]:
    """Return how many rows of a batch come from each part of a mixture, by phase and member; of one data set nothing.

    Raises:
        UserError: a part would give none, or a member wants a share of a target, and there is no mixture.
    """
    mixing: Mixing | None = getattr(data, "mixing", None)
    options = [member.options for member in members]
    if mixing:
        phases = range(len(mixing.shares))
        return [
            [mixing.counts(option.batch_size, phase, option.target_share) for option in options] for phase in phases
        ]
    if vain := [option.target_share for option in options if option.target_share]:
        raise UserError(f"target_share = {vain[0]:g} has no effect on one data set: name a mixture, {FORM}")
    return []


class Batches:
    """Batches of `columns` from the data, by the stacked options of K members.

    `networks` says where they go, in which precision, and which statistics normalise them. Several learners draw the
    same batches, and each takes its share of the rows. `draw` draws counted numbers, on a GPU. `counts` are those of
    `check_shares`. `returns` take the place of the data's own.
    """

    def __init__(
        self,
        data: Rows,
        columns: Sequence[str],
        options: Any,
        noise: Noise,
        seeds: Sequence[int],
        networks: nn.Module,
        share: Share = ALONE,
        draw: Callable[..., Draws] = counted,
        counts: Sequence[Sequence[Sequence[int]]] = (),
        returns: Returns | None = None,
    ):
        self.columns, self.share, self._networks, self._returns = columns, share, networks, returns
        self.members = range(len(seeds))
        first = next(networks.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.n_step: int = getattr(options, "n_step", 1)
        wanted = sorted({*columns, *(FOLLOWED if self.n_step > 1 else ())})
        asked = getattr(options, "hindsight", "none") != "none"
        self._hindsight = Hindsight(data, options, columns) if asked else None
        if self._hindsight:
            wanted = self._hindsight.wanted
            noise = noise._replace(uniform=noise.uniform | {NOISE: (2,)})
        self.data, self._given = resident(data, wanted, self.device, self.n_step), data
        self.discount: float = getattr(on_host(data), "gamma", 0.0)  # that of the data's returns
        self.random_crop: int = options.random_crop
        if self.random_crop:
            noise = noise._replace(uniform=noise.uniform | dict.fromkeys(CROPS.values(), (2,)))
        self.mixing: Mixing | None = getattr(data, "mixing", None)
        parts = self.mixing.rows if self.mixing else (len(data),)
        bounds, self._order = [list(parts)] * len(seeds), None
        if (shares := getattr(options, "best_share", torch.ones(1))).min() < 1.0:
            order, bounds = best_of_each(data.episodes, parts, shares.tolist())  # type: ignore[attr-defined]
            self._order = order.to(self.device)
        rows: Any = [bound[0] for bound in bounds]
        self._slots: list[Slots] = []  # by phase, for a mixture alone
        if self.mixing:
            slots = [self.mixing.slots(count, bounds) for count in counts]
            self._slots = [Slots(*(part.to(self.device) for part in slot)) for slot in slots]
            rows = self._slots[0].rows
        self.sampler: Sampler | CountingSampler = (
            Sampler(rows, options.batch_size, noise, seeds, self.dtype)
            if self.device.type == "cpu"
            else CountingSampler(rows, options.batch_size, noise, seeds, self.dtype, self.device, draw)
        )
        self._window: Window | None = None
        self._read_ahead: ReadAhead | None = None
        self._probe: tuple[Transition, dict[str, Tensor]] | None = None
        if isinstance(self.data, Dataset):
            warn_of_size(self.data, wanted, options.shuffle_window)
        if options.shuffle_window and options.shuffle_window < len(data):
            self._open_window(data, wanted, options, len(seeds))
        self._at_once, self._home = GATHERED_ROWS, torch.device("cpu")  # how many rows are gathered, and where
        if isinstance(self.data, Resident):
            self._home = self.data.device
            if returns:
                returns.to(self._home)
            numbers = sum(sizes_of(self.sampler.noise, options.batch_size)) / options.batch_size
            if self._hindsight:
                self._hindsight.to(self._home)
            self._at_once = int(ON_A_GPU / (self.data.row_bytes + DRAWN * numbers))

    def _open_window(self, data: Rows, columns: Sequence[str], options: Any, members: int) -> None:
        """Draw from a window of the data from now on, which is read ahead where the data lie on disk."""
        if isinstance(self.data, Resident):
            raise UserError("shuffle_window is for data larger than memory, and this GPU holds all rows: leave it out")
        rows = self.mixing.rows if self.mixing else (len(data),)
        self._window = Window(rows, options.shuffle_window, getattr(data, "row_bytes", ROW_BYTES), options.batch_size)
        if isinstance(data, Dataset):
            self._read_ahead = ReadAhead(data, columns, self._window.walks, self.n_step)
        first = torch.tensor(self.mixing.starts if self.mixing else [0], device=self.device)
        starts = [slots.starts for slots in self._slots] or [torch.zeros(members, 1, device=self.device)]
        self._parts = [torch.bucketize(start, first, right=True) - 1 for start in starts]  # [K, B] or [K, 1] by phase

    def stream(self, members: slice, n_steps: int, first: int = 0) -> Iterator[tuple[Transition, dict[str, Tensor]]]:
        """Yield batch and noise of these members' steps from `first` on; rows of several steps are gathered at once."""
        at_once = max(1, self._at_once // (len(self.members[members]) * self.sampler.batch_size))
        end = first + n_steps
        while first < end:
            n = min(at_once, (self.mixing.until(first, end) if self.mixing else end) - first)
            if self._window and self._read_ahead:
                self._read_ahead.hold(self._window.places(first, n))
            indices, noise = self.draws(members, n, first)
            first += n
            rows = self.gather(indices, noise, members)
            columns = {name: column for name, column in rows._asdict().items() if column is not None}
            for i in range(n):
                batch = Transition(**{name: each_part(itemgetter(i), column) for name, column in columns.items()})
                yield batch, {name: values[i] for name, values in noise.items()}

    def phase(self, step: int) -> int:
        """Return which weights of a mixture hold at this step; 0 for one data set."""
        return self.mixing.phase(step) if self.mixing else 0

    def draws(self, members: slice, n: int, first: int = 0) -> Draws:
        """Draw indices and noise of this learner's share of the `n` batches of the steps from `first` on.

        All learners draw alike. `first` says what is drawn from, by a mixture's weights or a window; samplers count on.
        """
        phase = self.phase(first)
        if self._window:
            indices, noise = self._draws_from_window(self._window, members, n, first)
        else:
            if self._slots:
                self.sampler.bound(self._slots[phase].rows)
            indices, noise = self.sampler.draws(members, n)
            if self._slots:
                indices = indices + self._slots[phase].starts[members]
        if self._order is not None:
            indices = self._order[indices]
        rows, per_step = self.share.rows(indices.shape[2]), self.sampler.noise.uniform_per_step
        return indices[:, :, rows], {name: v if name in per_step else v[:, :, rows] for name, v in noise.items()}

    def _draws_from_window(self, window: Window, members: slice, n: int, first: int) -> Draws:
        """Draw indices and noise of the `n` batches of the steps from `first` on, from the window at each of them."""
        parts, part = self._parts[self.phase(first)], []
        for step in range(first, first + n):
            table = window.table(step, self.device)
            self.sampler.bound(table.rows[parts])
            indices, noise = self.sampler.draws(members, 1)
            part.append((table.row(indices, parts[members]), noise))
        noises = {name: torch.cat([noise[name] for _, noise in part]) for name in part[0][1]}
        return torch.cat([indices for indices, _ in part]), noises

    def gather(
        self, indices: Tensor, noise: Mapping[str, Tensor] = MappingProxyType({}), members: slice = slice(None)
    ) -> Transition:
        """Return the columns of rows [*lead, K, B], as the networks take them.

        The `noise` [*lead, K, B, 2] of these members moves the images and draws goals; without it neither is done.
        """
        indices = indices.to(self._home)
        if self._hindsight:
            columns = self.data.gather(indices, self._hindsight.wanted)
            drawn = noise[NOISE].to(self._home) if NOISE in noise else None
            columns = self._hindsight.relabel(self.data, columns, indices, drawn, members)
        else:
            columns = self._columns(self.data, indices, self.columns)
        if self._returns:
            columns[COLUMN] = self._returns(indices, members)
        batch = self._as_parameters(columns)
        for name, crop in CROPS.items():
            if self.random_crop and name in batch and crop in noise:
                batch[name] = crop_images(batch[name], noise[crop].to(self.device), self.random_crop)
        for name in batch.keys() & CROPS.keys():
            batch[name] = normalized(self._networks, batch[name])
        return Transition(**batch)

    def probe(self) -> tuple[Transition, dict[str, Tensor]]:
        """Return 2,048 rows and their noise, [1, B, …]: the same for every member of every run on these data.

        They have the data's next actions, whatever the algorithm asks for. Returns that are not the data's are each
        member's, [K, B].
        """
        if self._probe is None:
            indices, noise = self.probe_draw()
            with self._read_ahead.holding(indices.flatten()) if self._read_ahead else nullcontext():
                batch = self.gather(indices)._replace(**self._recorded(indices))
            probe = batch, {name: values.to(self.device) for name, values in noise.items()}
            if not self._read_ahead:
                return probe
            self._probe = probe  # its rows lie all over the disk
        return self._probe

    def _recorded(self, indices: Tensor) -> dict[str, Any]:
        """Return what was done at s' and whether that is known, also where no objective asks for it."""
        try:
            columns = self._columns(self._given, indices, [name for name in RECORDED if name not in self.columns])
        except KeyError:  # data in memory may have none
            return {}
        return self._as_parameters(columns)

    def _columns(self, data: Rows, indices: Tensor, columns: Sequence[str]) -> dict[str, Any]:
        """Return columns of transitions over `n_step` steps."""
        if self.n_step > 1:
            return gather_n_step(data, indices, columns, self.n_step)
        return data.gather(indices, columns)

    def probe_draw(self) -> Draws:
        """Draw the indices [1, B] and the noise of the probe batch.

        The rows of a mixture are equally many of each part, one part after the other: `probe_counts`.
        """
        rows, starts = len(self.data), torch.zeros(1, dtype=torch.int64)
        if self.mixing:
            counts = torch.tensor(self.probe_counts)
            rows = torch.tensor(self.mixing.rows).repeat_interleave(counts)  # type: ignore[assignment]
            starts = torch.tensor(self.mixing.starts).repeat_interleave(counts)
        sampler = Sampler([rows], PROBE_ROWS, self.sampler.noise, [0], self.dtype, stream="probe")
        indices, noise = sampler.draw(slice(0, 1))
        return indices + starts, noise

    @property
    def probe_counts(self) -> list[int]:
        """How many rows of the probe batch are of each part of the data."""
        parts = len(self.mixing.rows) if self.mixing else 1
        return largest_remainders([Fraction(1, parts)] * parts, PROBE_ROWS)

    def _as_parameters(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Move columns to the networks' device, and floats to their precision."""

        def moved(column: Tensor) -> Tensor:
            return column.to(self.device, self.dtype if column.is_floating_point() else column.dtype)

        return {name: each_part(moved, column) for name, column in columns.items()}
