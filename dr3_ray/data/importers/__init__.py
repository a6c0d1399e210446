"""Importers: one file for each kind of source, one table of them, one function that writes what any of them reads.

A reader returns a `Source` (see `dr3_ray.data.importers.source`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import cast

from dr3_ray.data.importers.joined import joined
from dr3_ray.data.importers.reading import reading
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.strangers import stranger
from dr3_ray.errors import UserError
from dr3_ray.uris import is_uri, path_here


@dataclass(frozen=True)
class Importer:
    """One kind of source, in a module of its own that is imported when it is used."""

    what: str  # in words
    module: str
    reads: str  # the function that opens a source: the rest after `scheme:`, and options
    detects: str | None = None  # the function that knows a file or folder by its layout; without it, the scheme does
    options: tuple[str, ...] = ()  # fields of `Options` that it reads

    def open(self, source: str, options: Options) -> Source:
        """Open a source.

        Raises:
            UserError: it cannot be read.
        """
        return cast(Callable[[str, Options], Source], self._function(self.reads))(source, options)

    def knows(self, path: Path) -> bool:
        """Return whether a file or folder has this layout."""
        return self.detects is not None and bool(self._function(self.detects)(path))

    def _function(self, name: str) -> Callable[..., object]:
        return cast(Callable[..., object], getattr(import_module(f"{__name__}.{self.module}"), name))


TABLE = ("columns", "action_space", "max_steps")
# by scheme; a path without one is the first whose layout it has
IMPORTERS = {
    "minari": Importer("a Minari data set", "minari", "minari_source"),
    "d4rl": Importer("a D4RL HDF5 file", "d4rl", "d4rl_source", "is_d4rl", ("action_space", "max_steps")),
    "robomimic": Importer("a robomimic HDF5 file", "robomimic", "robomimic_source", "is_robomimic", ("action_space",)),
    "ogbench": Importer("an OGBench .npz file", "ogbench", "ogbench_source", "is_ogbench", ("action_space", "goal")),
    "neorl": Importer("a NeoRL .npz file", "neorl", "neorl_source", "is_neorl", ("action_space",)),
    "v-d4rl": Importer("a V-D4RL folder or file", "v_d4rl", "v_d4rl_source", "is_v_d4rl", ("action_space",)),
    "dqn-replay": Importer(
        "a folder of DQN replay", "dqn_replay", "dqn_replay_source", "is_dqn_replay", ("action_space",)
    ),
    "lerobot": Importer("a LeRobot folder", "lerobot", "lerobot_source", "is_lerobot", ("action_space", "columns")),
    "rllib": Importer("recordings of RLlib", "rllib", "rllib_source", "is_rllib", ("action_space",)),
    "rlds": Importer("an RLDS table of episodes", "rlds", "rlds_source", "is_rlds", ("action_space",)),
    "npz": Importer("arrays in an .npz file", "plain", "npz_source", "is_npz", (*TABLE, "trust")),
    "hdf5": Importer("arrays in an HDF5 file", "plain", "hdf5_source", "is_hdf5", TABLE),
    "csv": Importer("a CSV table", "plain", "csv_source", "is_csv", TABLE),
    "parquet": Importer("a Parquet table", "plain", "parquet_source", "is_parquet", TABLE),
    "arrow": Importer("an Arrow table", "plain", "arrow_source", "is_arrow", TABLE),
}


def find(source: str) -> tuple[str, str]:
    """Return the scheme of a source and what it names: `scheme:NAME`, or a path whose layout tells the scheme.

    Raises:
        UserError: nothing is there, it cannot be read, no importer knows the layout, or it is a URI of elsewhere.
    """
    with reading(source):
        return _found(source)


def _found(source: str) -> tuple[str, str]:
    scheme, mark, name = source.partition(":")
    named = bool(mark) and scheme in IMPORTERS
    if named and IMPORTERS[scheme].detects is None:
        return scheme, name
    given = name if named else source
    path = cast(Path, path_here(given)).expanduser() if is_uri(given) else Path(given).expanduser()
    if named and path.exists():
        return scheme, str(path)
    if not path.exists():
        raise UserError(
            f"cannot import {source!r}: write minari:ID, such as minari:D4RL/pen/human-v2, or the path of a file or "
            "folder that is there"
        )
    for scheme, importer in IMPORTERS.items():
        if importer.knows(path):
            return scheme, str(path)
    if path.is_file() and not path.stat().st_size:
        raise UserError(f"{source} is empty: copy it again")
    if what := stranger(path):
        raise UserError(f"{source} is {what}")
    local = [name for name, importer in IMPORTERS.items() if importer.detects]
    raise UserError(f"cannot tell what {source} is: say it, as in {local[0]}:{source}; there are {', '.join(local)}")


def open_sources(sources: Sequence[str], options: Options | None = None) -> Source:
    """Open one source, or several with the same spaces as one.

    Raises:
        UserError: as `open_source`, or their spaces differ.
    """
    return joined([open_source(source, options) for source in sources])


def open_source(source: str, options: Options | None = None) -> Source:
    """Open anything that `find` knows.

    Raises:
        UserError: it cannot be read, or an option says nothing to it.
    """
    scheme, name = find(source)
    importer, options = IMPORTERS[scheme], options or Options()
    for option in fields(Options):
        if getattr(options, option.name) != option.default and option.name not in importer.options:
            raise UserError(f"--{option.name.replace('_', '-')} says nothing to {importer.what}: leave it out")
    with reading(source):
        opened = importer.open(name, options)
    return opened if opened.files else replace(opened, files=(Path(name).expanduser().resolve(),))
