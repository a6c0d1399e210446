"""`dr3-ray data cache`: this machine's copies of data sets, and what interrupted commands left on it."""

import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dr3_ray.cli.document import print_document
from dr3_ray.data.cache import Cached, contents, foreign
from dr3_ray.data.cache import prune as remove
from dr3_ray.data.leftovers import leftovers
from dr3_ray.data.machine import cache_folder, cache_limit


def show(prune: float | None, as_json: bool) -> None:
    """Print what is kept; with `prune`, remove before what was not used for so many days."""
    limit = cache_limit()
    swept = leftovers() if prune is not None else []
    gone = remove(prune * 86_400) if prune is not None else []
    kept, left, others = contents(), leftovers(), foreign()
    if as_json:
        removed = {"datasets": list(map(_entry, gone)), "leftovers": [str(leftover.path) for leftover in swept]}
        folders = {"leftovers": [str(leftover.path) for leftover in left], "foreign": list(map(str, others))}
        datasets = {"limit_bytes": limit, "datasets": list(map(_entry, kept))}
        print_document({"folder": str(cache_folder()), **datasets, **folders, "removed": removed})
        return
    if prune is not None:
        print(f"removed {len(gone)} data sets, {sum(copy.size for copy in gone) / 1e6:,.1f} MB")
    for leftover in swept:
        print(f"removed what was left in {leftover.path}")
    table = Table("data set", "fingerprint", "MB", "used", title=escape(str(cache_folder())), title_justify="left")
    for data in kept:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(data.used))
        table.add_row(escape(data.manifest.name), data.manifest.fingerprint[:16], f"{data.size / 1e6:,.1f}", used)
    Console().print(table if table.row_count else f"{cache_folder()} is empty", soft_wrap=True, highlight=False)
    if limit is not None:
        print(f"{sum(data.size for data in kept) / 1e6:,.1f} MB of at most {limit / 1e6:,.1f}")
    for leftover in left:
        print(f"left by an interrupted process, --prune removes it: {leftover.path}")
    for path in others:
        print(f"not of dr3-ray, it stays: {path}")


def _entry(data: Cached) -> dict[str, Any]:
    """Return a copy of a data set, for programs; `used` is in seconds since 1970."""
    about = {"path": str(data.path), "name": data.manifest.name, "fingerprint": data.manifest.fingerprint}
    return about | {"bytes": data.size, "used": data.used}
