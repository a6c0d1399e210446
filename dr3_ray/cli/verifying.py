"""`dr3-ray data verify`: every row and file of a data set is compared with its manifest."""

import sys

from dr3_ray.cli.document import print_document
from dr3_ray.data import load_dataset
from dr3_ray.data import verify as verify_contents
from dr3_ray.data.selected import Selected
from dr3_ray.data.verification import seal as seal_manifest
from dr3_ray.errors import UserError
from dr3_ray.uris import path_here


def verify_all(source: str, seal: bool, as_json: bool) -> None:
    """Check all that is on disk and say so; with `seal`, write the manifest anew before.

    Raises:
        UserError: something differs, or there is nothing to seal.
    """
    if seal:
        folder = path_here(source)
        if not folder or not folder.is_dir():
            raise UserError(f"{source} is not a folder of this machine: --seal writes into one")
        sealed = seal_manifest(folder).fingerprint
        if not as_json:
            print(f"sealed: the fingerprint is {sealed}")
    dataset = load_dataset(source)
    whole = dataset.whole if isinstance(dataset, Selected) else dataset
    verify_contents(whole)
    if as_json:
        checked = {"rows": len(whole), "shards": len(whole.manifest.shards), "rows_of_subset": len(dataset)}
        about = {"fingerprint": whole.fingerprint, "sealed": seal, "note": dataset.manifest.note or None}
        print_document({**checked, **about})
        return
    print(f"ok: {len(whole):,} rows in {len(whole.manifest.shards)} shard(s) are as they were written")
    if whole is not dataset:
        print(f"the whole data set was checked; {dataset.subset} has {len(dataset):,} of its rows")
    if dataset.manifest.note:
        print(f"note: {dataset.manifest.note}", file=sys.stderr)
