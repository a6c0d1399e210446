"""`dr3-ray data cache`: this machine's copies of data sets, and what interrupted commands left on it."""

import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dr3_ray.data.cache import contents, foreign
from dr3_ray.data.cache import prune as remove
from dr3_ray.data.leftovers import leftovers
from dr3_ray.data.machine import cache_folder, cache_limit


def show(prune: float | None) -> None:
    """Print what is kept; with `prune`, remove before what was not used for so many days."""
    limit = cache_limit()
    if prune is not None:
        left = leftovers()
        gone = remove(prune * 86_400)
        print(f"removed {len(gone)} data sets, {sum(copy.size for copy in gone) / 1e6:,.1f} MB")
        for leftover in left:
            print(f"removed what was left in {leftover.path}")
    table = Table("data set", "fingerprint", "MB", "used", title=escape(str(cache_folder())), title_justify="left")
    for data in contents():
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(data.used))
        table.add_row(escape(data.manifest.name), data.manifest.fingerprint[:16], f"{data.size / 1e6:,.1f}", used)
    Console().print(table if table.row_count else f"{cache_folder()} is empty", soft_wrap=True, highlight=False)
    if limit is not None:
        print(f"{sum(data.size for data in contents()) / 1e6:,.1f} MB of at most {limit / 1e6:,.1f}")
    for leftover in leftovers():
        print(f"left by an interrupted process, --prune removes it: {leftover.path}")
    for path in foreign():
        print(f"not of dr3-ray, it stays: {path}")
