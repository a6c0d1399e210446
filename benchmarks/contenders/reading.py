"""A file of D4RL's layout: read into memory by h5py, or imported; or our reader of all rows, a process of several."""

import itertools
import shutil
from pathlib import Path
from typing import Any

from turns import asked, take_turns

case = asked()


def h5py_reads() -> None:
    import h5py

    with h5py.File(case["file"]) as file:
        {name: file[name][:] for name in file}


def imports() -> None:
    from dr3_ray.data.importers import open_source
    from dr3_ray.data.importers.source import Options
    from dr3_ray.data.importers.writing import import_source

    out = f"{case['out']}-{next(count)}"
    import_source(lambda: open_source(f"d4rl:{case['file']}", Options(action_space="box:-1,1")), out)
    shutil.rmtree(out)


def opens() -> None:
    from dr3_ray.data import load_dataset

    load_dataset(case["dataset"])


def reads() -> None:
    import torch

    from dr3_ray.data import load_dataset

    if not held:
        held.append(load_dataset(case["dataset"]))  # mapped once in each process, until it ends
    (data,) = held
    for rows in torch.arange(len(data)).split(1024):
        data.gather(rows, data.columns)


def memory() -> dict[str, float]:
    """Return MiB: the most since it began, and of a data set's files, with pages that others map counted in parts."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found, ours = 0.0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if "-" in fields[0]:
            ours = fields[-1].endswith(".arrow")
        elif ours and fields[0] == "Pss:":
            found += int(fields[1]) / 1024
    return {"mapped_pss_mib": found, "most_mib": int(status["VmHWM"].split()[0]) / 1024}


count, held = itertools.count(), list[Any]()
work = {"h5py": h5py_reads, "import": imports, "open": opens, "read": reads}[case["who"]]
take_turns(lambda n: work(), facts=memory)
