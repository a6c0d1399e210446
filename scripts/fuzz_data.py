"""Coverage-guided fuzzing of data sets: libFuzzer changes a manifest or a shard, and reading may only raise UserError.

`python scripts/fuzz_data.py SECONDS` ends with an error and the input if something else happens: another exception,
a crash, more than 10 s or 1 GiB for one input.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dr3_ray.data"]):
    import torch

    from dr3_ray.data import verify
    from dr3_ray.data.embedded import embedded_path
    from dr3_ray.data.reader import Dataset
    from dr3_ray.data.schema import MANIFEST
    from dr3_ray.errors import UserError

FOLDER = Path(tempfile.mkdtemp()) / "data"
FILES = (MANIFEST, "shard-00000.arrow", "episodes.arrow")
FIRST = 4096  # bytes of an Arrow file that are changed: its metadata
ORIGINAL = {name: (embedded_path("pendulum-replay") / name).read_bytes() for name in FILES}


def read(content: bytes) -> None:
    """Write the changed bytes over one of the files, and read all of the data set."""
    name, changed = FILES[content[0] % len(FILES)] if content else MANIFEST, content[1:]
    original = ORIGINAL[name]
    (FOLDER / name).write_bytes(changed if name == MANIFEST else changed[:FIRST] + original[len(changed[:FIRST]) :])
    try:
        dataset = Dataset(FOLDER, accept=True)
        dataset.gather(torch.arange(min(1000, len(dataset))), dataset.columns)
        verify(dataset)
    except UserError:
        pass
    finally:
        (FOLDER / name).write_bytes(original)


if __name__ == "__main__":
    shutil.copytree(embedded_path("pendulum-replay"), FOLDER)
    corpus = FOLDER.with_name("corpus")
    corpus.mkdir()
    for number, name in enumerate(FILES):
        (corpus / name).write_bytes(bytes([number]) + ORIGINAL[name][:FIRST])
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=8192", f"-max_total_time={sys.argv[1]}"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], read)
    atheris.Fuzz()
