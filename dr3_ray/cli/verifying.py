"""`dr3-ray data verify`: every row and file of a data set is compared with its manifest."""

import sys

from dr3_ray.data import load_dataset
from dr3_ray.data import verify as verify_contents
from dr3_ray.data.selected import Selected
from dr3_ray.data.verification import seal as seal_manifest
from dr3_ray.errors import UserError
from dr3_ray.uris import path_here


def verify_all(source: str, seal: bool) -> None:
    """Check all that is on disk and say so; with `seal`, write the manifest anew before.

    Raises:
        UserError: something differs, or there is nothing to seal.
    """
    if seal:
        folder = path_here(source)
        if not folder or not folder.is_dir():
            raise UserError(f"{source} is not a folder of this machine: --seal writes into one")
        print(f"sealed: the fingerprint is {seal_manifest(folder).fingerprint}")
    dataset = load_dataset(source)
    whole = dataset.whole if isinstance(dataset, Selected) else dataset
    verify_contents(whole)
    print(f"ok: {len(whole):,} rows in {len(whole.manifest.shards)} shard(s) are as they were written")
    if whole is not dataset:
        print(f"the whole data set was checked; {dataset.subset} has {len(dataset):,} of its rows")
    if dataset.manifest.note:
        print(f"note: {dataset.manifest.note}", file=sys.stderr)
