"""The file in a partial folder that says what is imported there, and which parts are whole: an import can go on."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dr3_ray.data import states
from dr3_ray.stores import append_line

JOURNAL = "journal.jsonl"


class Journal:
    """What an import of the same source has written into a folder; other files there are removed.

    Lines of JSON: first of what is imported, then one for each part whose files are on disk.

    Args:
        folder: where the files lie.
        about: of the source and the import. If the folder has another one, nothing in it counts.
        once: what else the first line has: it stays what it was when the import began.
    """

    def __init__(self, folder: Path, about: dict[str, Any], once: dict[str, Any]) -> None:
        self._folder, self._path = folder, folder / JOURNAL
        self.once, self.parts = once, dict[int, dict[str, Any]]()
        head, *lines = self._lines() or [None]
        if isinstance(head, dict) and head.get("about") == states.load(states.dump(about)):
            self.once = head["once"]
            self.parts = {line["part"]: line["state"] for line in lines if self._has(line["state"]["files"])}
        shards = [shard for state in self.parts.values() for shard in state["files"]]
        known = {JOURNAL, *(file["file"] for file in _files(shards))}
        for path in folder.iterdir():
            if path.name not in known or (path.name == JOURNAL and not self.parts):
                path.unlink()
        if not self.parts:
            self.once = once
            append_line(self._path, states.dump({"about": about, "once": once}))

    @property
    def rows(self) -> int:
        """The rows that are on disk."""
        return sum(file["rows"] for state in self.parts.values() for file in state["files"])

    def add(self, part: int, state: dict[str, Any]) -> dict[str, Any]:
        """Note that a part is whole; return its state as it is read again."""
        line = states.dump({"part": part, "state": state})
        append_line(self._path, line)
        self.parts[part] = states.load(line)["state"]
        return self.parts[part]

    def _lines(self) -> list[Any]:
        """Return the lines that were written to their ends."""
        try:
            written = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return []
        lines = []
        for line in written:
            try:
                lines.append(states.load(line))
            except ValueError:
                continue
        return lines

    def _has(self, shards: Iterable[dict[str, Any]]) -> bool:
        try:
            return all((self._folder / file["file"]).stat().st_size == file["bytes"] for file in _files(shards))
        except OSError:
            return False


def _files(shards: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the files of shards, those of their frames too."""
    return [file for shard in shards for file in (shard, *shard.get("frames", ()))]


def identity_of(files: Iterable[Path], apart: Iterable[Path]) -> str:
    """Return a digest of the sizes and times of files, and of all in folders: it tells when a source changes.

    The folders `apart` and what is in them count for nothing.
    """
    entries = []
    for place in files:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and not {path, *path.parents} & set(apart):
                entries.append([str(path), path.stat().st_size, path.stat().st_mtime_ns])
    return hashlib.sha256(states.dump(entries).encode()).hexdigest()
