"""Opening a data set by its name, wherever it lies."""

import os
from pathlib import Path

from dr3_ray.data.addresses import Address
from dr3_ray.data.cache import cached, refuse_others
from dr3_ray.data.mixture import Mixture
from dr3_ray.data.mixture_names import MixtureName, is_mixture, names_in
from dr3_ray.data.opening import read_manifest
from dr3_ray.data.reader import Dataset
from dr3_ray.data.selected import Selected
from dr3_ray.errors import UserError, first_line
from dr3_ray.uris import is_uri, spelled_out


def load_dataset(source: str | os.PathLike[str], gamma: float | None = None) -> Dataset:
    """Open `embedded:NAME`, the directory of a data set, or its URI, with `gamma` as in `Dataset`.

    Each may name some rows, `DIR?split=train&take=best:0.1` (`dr3_ray.data.subsets`), and end in `#FINGERPRINT`: those
    data and no others. The data at a URI are copied to this machine once (`dr3_ray.data.cache`). `mix:A=0.9,B=0.1` is a
    `Mixture` of such data sets, of one of them that data set.

    Raises:
        UserError: as `Dataset` and `Mixture`, the data cannot be copied, or there are no such rows.
    """
    source = spelled_out(os.fspath(source))
    if is_mixture(source):
        return _load_mixture(MixtureName.parse(source), gamma)
    if source.startswith("minari:"):
        raise UserError(f"{source} has to be imported first: dr3-ray data import {source} --out DIR")
    address = Address.parse(source)
    whole = _load_whole(address, gamma)
    return Selected(whole, address.subset) if address.subset else whole


def opened(source: Dataset | str | os.PathLike[str]) -> Dataset:
    """Return a data set as it is, or open it by its name with `load_dataset`."""
    return source if isinstance(source, Dataset) else load_dataset(source)


def largest_reward(source: str) -> float:
    """Return the largest magnitude of a reward of the data set that this names, all its rows included; 0: not known.

    Raises:
        UserError: it is not here, or its manifest cannot be read.
    """
    manifests = [read_manifest(_folder(Address.parse(name))) for name in names_in(source)]
    rewards = [manifest.statistics["rewards"] for manifest in manifests if "rewards" in manifest.statistics]
    return max((max(abs(reward.min), abs(reward.max)) for reward in rewards), default=0.0)


def _load_mixture(name: MixtureName, gamma: float | None) -> Dataset:
    """Open all parts, with the target's discount of Monte-Carlo returns where they have others."""
    target = load_dataset(name.parts[-1].data, gamma)
    if len(name.parts) == 1:
        return target
    return Mixture(name, [*(load_dataset(part.data, target.gamma) for part in name.parts[:-1]), target])


def _load_whole(address: Address, gamma: float | None) -> Dataset:
    """Open all rows of the data set, whatever subset of it is meant."""
    path = _folder(address)
    if is_uri(address.place):
        return Dataset(path, gamma, f"{address.place}#{read_manifest(path).fingerprint}")
    data = Dataset(path, gamma)
    refuse_others(data.manifest, address)
    return data


def _folder(address: Address) -> Path:
    """Return the folder of the data set on this machine, to which the data at a URI are copied."""
    place = address.place
    if is_uri(place):
        try:
            return cached(str(address))
        except OSError as error:
            raise UserError(f"{place} cannot be read: {first_line(error)}") from error
    if place.startswith("embedded:"):
        from dr3_ray.data.embedded import embedded_path

        return embedded_path(place.removeprefix("embedded:"))
    return Path(place)
