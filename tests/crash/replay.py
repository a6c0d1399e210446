"""What a power cut may leave of a folder, built from the journal of what was done to it.

    disk = Disk(run)  # as it is before the processes start
    …                 # they run, watched as tests/crash/shim.py says
    for operation in read_journal(journal):
        disk.apply(operation)
        for loss in LOSSES:
            disk.crash(loss, target)  # now `target` is what the cut left; disk.marks were acknowledged by then

What a file holds is durable after its own synchronisation, names are after that of their folder, as POSIX has it; more
than that no program may count on. Of what is not durable a loss keeps nothing, all, or the first part, for each file
and folder on its own.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.shim import Operation


@dataclass(eq=False)
class Inode:
    """A file or folder, and all that was done to it; the first `durable` of these changes survive any loss."""

    is_folder: bool
    changes: list[tuple[Any, ...]] = field(default_factory=list)
    durable: int = 0
    names: dict[str, "Inode"] = field(default_factory=dict)
    """Of a folder, now."""

    @property
    def pending(self) -> int:
        """How many changes may be lost."""
        return len(self.changes) - self.durable


Loss = Callable[[Inode], tuple[int, str]]
"""How many pending changes are kept, and what is left of the write after them: `nothing`, `half` or `zeros`."""


def nothing_kept(inode: Inode) -> tuple[int, str]:
    """All that was not synchronised is gone."""
    return 0, "nothing"


def names_kept(inode: Inode) -> tuple[int, str]:
    """Files have their new names and not their contents, as on file systems that allocate late."""
    return (inode.pending if inode.is_folder else 0), "nothing"


def contents_kept(inode: Inode) -> tuple[int, str]:
    """Files have their contents and not their new names."""
    return (0 if inode.is_folder else inode.pending), "nothing"


def all_kept(inode: Inode) -> tuple[int, str]:
    """As after a kill."""
    return inode.pending, "nothing"


def torn(inode: Inode) -> tuple[int, str]:
    """Half of what was written last."""
    return (inode.pending, "nothing") if inode.is_folder else (inode.pending // 2, "half")


def zeros(inode: Inode) -> tuple[int, str]:
    """The size of what was written last, and zeros in its place."""
    return (inode.pending, "nothing") if inode.is_folder else (max(0, inode.pending - 1), "zeros")


LOSSES: tuple[Loss, ...] = (nothing_kept, names_kept, contents_kept, all_kept, torn, zeros)


def by_chance(seed: int) -> Loss:
    """For each file and folder another part."""
    source = random.Random(seed)
    return lambda inode: (source.randint(0, inode.pending), source.choice(("nothing", "half", "zeros")))


class Disk:
    """A folder as it was, to which operations are applied; `marks` are those among them."""

    def __init__(self, folder: Path) -> None:
        self.marks: list[str] = []
        self._by_number: dict[int, Inode] = {}
        self._root = self._taken(folder)

    def _taken(self, path: Path) -> Inode:
        inode = Inode(path.is_dir())
        self._by_number[path.stat().st_ino] = inode
        if inode.is_folder:
            for child in path.iterdir():
                self._bind(inode, child.name, self._taken(child))
        else:
            inode.changes.append(("write", 0, path.read_bytes()))
        inode.durable = len(inode.changes)
        return inode

    def apply(self, operation: Operation) -> None:
        """The next operation of the journal."""
        match operation.kind:
            case "mark":
                self.marks.append(operation.path)
            case "create" | "mkdir":
                inode = self._by_number[operation.inode] = Inode(operation.kind == "mkdir")
                self._bind(*self._place(operation.path), inode)
            case "write":
                self._by_number[operation.inode].changes.append(("write", operation.offset, operation.content))
            case "truncate":
                self._by_number[operation.inode].changes.append(("truncate", operation.offset))
            case "sync":
                inode = self._by_number[operation.inode]
                inode.durable = len(inode.changes)
            case "link":
                self._bind(*self._place(operation.target), self._by_number[operation.inode])
            case "unlink":
                self._unbind(*self._place(operation.path))
            case "rename":
                self._rename(operation)

    def crash(self, loss: Loss, target: Path) -> None:
        """Build at `target`, which is removed before, what is left after this loss."""
        shutil.rmtree(target, ignore_errors=True)
        kept = {inode: loss(inode) for inode in self._all(self._root, set())}
        names = {inode: _names(inode, kept[inode][0]) for inode in kept if inode.is_folder}
        for inode in names:
            for change in inode.changes[: inode.durable + kept[inode][0]]:
                if change[0] == "move" and names.get(change[3], {}).get(change[4]) is change[2]:
                    del names[change[3]][change[4]]
        _build(self._root, target, names, kept)

    def _rename(self, operation: Operation) -> None:
        assert operation.path, f"{operation.target} came from elsewhere: watch the folder above"
        folder, name = self._place(operation.path)
        inode = folder.names[name]
        if not operation.target:
            return self._unbind(folder, name)
        to, new = self._place(operation.target)
        del folder.names[name]
        to.names[new] = inode
        to.changes.append(("move", new, inode, folder, name))

    def _place(self, path: str) -> tuple[Inode, str]:
        *folders, name = path.split("/")
        inode = self._root
        for each in folders:
            inode = inode.names[each]
        return inode, name

    def _bind(self, folder: Inode, name: str, inode: Inode) -> None:
        folder.names[name] = inode
        folder.changes.append(("set", name, inode))

    def _unbind(self, folder: Inode, name: str) -> None:
        del folder.names[name]
        folder.changes.append(("unset", name))

    def _all(self, inode: Inode, seen: set[Inode]) -> Iterator[Inode]:
        """Whatever some loss could bring back."""
        if inode in seen:
            return
        seen.add(inode)
        yield inode
        for change in inode.changes if inode.is_folder else ():
            if change[0] != "unset":
                yield from self._all(change[2], seen)


def _names(folder: Inode, kept: int) -> dict[str, Inode]:
    found: dict[str, Inode] = {}
    for change in folder.changes[: folder.durable + kept]:
        if change[0] == "unset":
            found.pop(change[1], None)
            continue
        if change[0] == "move" and change[3] is folder:  # within a folder a name is lost and given in one step
            found.pop(change[4], None)
        found[change[1]] = change[2]
    return found


def _content(file: Inode, kept: int, rest: str) -> bytes:
    made, found = file.durable + kept, bytearray()
    changes = list(file.changes[:made])
    if rest != "nothing" and made < len(file.changes) and file.changes[made][0] == "write":
        _, offset, written = file.changes[made]
        changes.append(("write", offset, bytes(len(written)) if rest == "zeros" else written[: len(written) // 2]))
    for change in changes:
        if change[0] == "truncate":
            found = found[: change[1]].ljust(change[1], b"\0")
        else:
            end = change[1] + len(change[2])
            found = found.ljust(end, b"\0")
            found[change[1] : end] = change[2]
    return bytes(found)


def _build(inode: Inode, path: Path, names: dict[Inode, dict[str, Inode]], kept: dict[Inode, tuple[int, str]]) -> None:
    if inode.is_folder:
        os.mkdir(path)
        for name, child in names[inode].items():
            _build(child, path / name, names, kept)
    else:
        path.write_bytes(_content(inode, *kept[inode]))
