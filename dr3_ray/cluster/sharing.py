"""What the machines of a cluster share: the storage of checkpoints, and the data, which reach those without them."""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dr3_ray.cluster.nodes import alive, on_each
from dr3_ray.data.addresses import Address
from dr3_ray.data.cache import upload
from dr3_ray.data.loading import load_dataset
from dr3_ray.data.mixture_names import MixtureName, is_mixture
from dr3_ray.data.schema import MANIFEST
from dr3_ray.errors import UserError, first_line
from dr3_ray.remote import open_store
from dr3_ray.uris import is_uri


class MachineView(NamedTuple):
    """What one machine sees: why it cannot use the storage (None: it can), and the digests of manifests by folder."""

    address: str
    unusable: str | None
    manifests: dict[str, str | None]


def share(storage: str, needed: bool, datasets: Mapping[str, str], say: Callable[[str], None]) -> dict[str, str]:
    """Return where trials find the data sets, given by their fingerprints as absolute paths or URIs.

    Each (of a mixture each part) ends in `#FINGERPRINT`, so that a trial takes no other data that lie there later. A
    URI is the same everywhere. A folder that some machine does not see, or sees with other contents, is put into the
    storage, from where every machine copies it once; `say` is told. The storage has to be shared if that is `needed`.

    Raises:
        UserError: a machine does not see the storage; says which, and what to do.
    """
    if mixtures := {name: MixtureName.parse(at) for name, at in datasets.items() if is_mixture(at)}:
        parts = {name: [_identified(part.data) for part in mixture.parts] for name, mixture in mixtures.items()}
        plain = {name: at for name, at in datasets.items() if name not in mixtures}
        copied = share(storage, needed, plain | dict(part for unit in parts.values() for part in unit), say)
        mixed = {name: str(mixtures[name].renamed([copied[part] for part, _ in parts[name]])) for name in mixtures}
        return {name: copied[name] for name in plain} | mixed
    addresses = {name: Address.parse(at)._replace(fingerprint=name) for name, at in datasets.items()}
    sources = {name: str(address) for name, address in addresses.items()}
    places = {name: address.place for name, address in addresses.items()}
    folders = {name: place for name, place in places.items() if not (is_uri(place) or place.startswith("embedded:"))}
    views = _views(storage, list(folders.values()))
    apart = next((view for view in views if view.unusable), None)
    if apart and needed:
        raise UserError(
            f"{apart.unusable} on {apart.address}: "
            "give --storage a path or URI that all machines share, or --checkpoint-every 0"
        )
    for name, path in folders.items():
        lacking = [view.address for view in views if view.manifests[path] != _digest(path)]
        if lacking and apart:
            raise UserError(
                f"{path} is not there on {lacking[0]}: share its folder, or give a --storage that all machines share"
            )
        if lacking:
            say(f"{path} is not there on {', '.join(lacking)}: machines take it from {storage}, each once")
            sources[name] = str(addresses[name]._replace(place=_upload(path, storage)))
    return sources


def _identified(source: str) -> tuple[str, str]:
    """Return the fingerprint of a data set, and its name."""
    return load_dataset(source).fingerprint, source


def _views(storage: str, paths: Sequence[str]) -> list[MachineView]:
    """Return what every machine sees of the storage and the paths; a single machine is not asked."""
    if len(alive()) < 2:
        return []
    mark = f".shared-{secrets.token_hex(4)}"
    try:
        filesystem, root = open_store(storage)
        filesystem.create_dir(root, recursive=True)
        with filesystem.open_output_stream(f"{root}/{mark}") as file:
            file.write(b"")
    except OSError as error:
        raise UserError(f"storage {storage} cannot be used: {first_line(error)}") from error

    def look() -> tuple[str | None, dict[str, str | None]]:
        return _unusable(storage, mark), {path: _digest(path) for path in paths}

    try:
        return [MachineView(address, *seen) for address, seen in on_each(alive(), look)]
    finally:
        filesystem.delete_file(f"{root}/{mark}")


def _unusable(storage: str, mark: str) -> str | None:
    """Return why this machine cannot use the storage, in which there is a file called `mark`; None: it can."""
    try:
        filesystem, root = open_store(storage)
        visible = filesystem.get_file_info(f"{root}/{mark}").is_file
    except OSError as error:
        return f"{storage} cannot be used ({first_line(error)})"
    return None if visible else f"{storage} is another directory"


def _digest(folder: str) -> str | None:
    """Return the digest of a folder's manifest, which names those of all files; None: no data set is there."""
    try:
        return hashlib.sha256((Path(folder) / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return None


def _upload(path: str, storage: str) -> str:
    """Put the data set in a folder into the storage, and return its URI there."""
    try:
        return Address.parse(upload(Path(path), storage)).place
    except OSError as error:
        raise UserError(f"{path} could not be copied to {storage}: {first_line(error)}") from error
