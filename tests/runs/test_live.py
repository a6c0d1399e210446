"""Readers of what another process writes at that moment; nothing half-written or half-removed comes home."""

import shutil
import threading
from pathlib import Path

from dr3_ray.runs.fetch import _from_storage
from dr3_ray.runs.storage import FOLDER

FILES = 10


def test_checkpoints_that_a_sweep_removes_meanwhile_come_whole_or_not(tmp_path: Path) -> None:
    pack, over = tmp_path / "store" / FOLDER / "p0", threading.Event()
    pack.mkdir(parents=True)

    def sweep() -> None:
        kept: list[Path] = []
        number = 0
        while not over.wait(0.01):
            number += 1
            partial, final = pack / f".{number}", pack / str(number)
            partial.mkdir()
            for each in range(FILES):
                (partial / f"file{each}").write_text(str(number))
            kept.append(partial.rename(final))
            if len(kept) > 2:
                shutil.rmtree(kept.pop(0))

    writing = threading.Thread(target=sweep)
    writing.start()
    try:
        for number in range(20):
            home = tmp_path / f"home{number}"
            home.mkdir()
            assert _from_storage(str(tmp_path / "store"))(FOLDER, home)
            for checkpoint in (home / FOLDER).glob("p0/[0-9]*"):
                assert {path.read_text() for path in checkpoint.iterdir()} == {checkpoint.name}
                assert len(list(checkpoint.iterdir())) == FILES
    finally:
        over.set()
        writing.join()
