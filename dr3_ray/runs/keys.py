"""Which files this user made: a key of the user's own signs what is pickled, and the signature lies beside it."""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from dr3_ray.process.folders import cache_home

KEY = "DR3_RAY_KEY"  # the variable that names the file of the key
SIGNATURES = "signatures.json"
MARK = "mark"  # in what a directory says of itself


def key_file() -> Path:
    """Return the file with this user's key: `$DR3_RAY_KEY`, by default `key` in the folder of the cache."""
    return Path(os.environ.get(KEY) or cache_home() / "key").expanduser()


def user_key(create: bool = False) -> bytes | None:
    """Return this user's key; None where there is none, it is not this user's alone, or it cannot be made."""
    path = key_file()
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
            try:
                with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(secrets.token_hex(32))
                os.link(partial, path)  # whoever is first
            except FileExistsError:
                pass
            finally:
                partial.unlink(missing_ok=True)
        status = path.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            return None
        return path.read_bytes().strip() or None
    except OSError:
        return None


def sign(folder: Path, names: list[str]) -> None:
    """Write the signatures of these files of a folder; nothing where there is no key, so that nobody trusts them."""
    key = user_key(create=True)
    if key is not None:
        signatures = {name: _signature(key, name, (folder / name).read_bytes()) for name in names}
        (folder / SIGNATURES).write_text(json.dumps(signatures))


def is_signed(folder: Path, name: str, content: bytes) -> bool:
    """Return whether this user signed a file of this name with this content, and owns the one in the folder."""
    key = user_key()
    try:
        signature = json.loads((folder / SIGNATURES).read_text())[name]
        mine = (folder / name).stat().st_uid == os.getuid()
        return key is not None and mine and hmac.compare_digest(signature, _signature(key, name, content))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def mark(folder: Path) -> str | None:
    """Return a mark of a folder that only this user can make; None without a key.

    A copy is another folder, so that what comes back from somebody is not mistaken for what was given to them.
    """
    key, status = user_key(create=True), folder.stat()
    return _signature(key, "folder", f"{status.st_dev}:{status.st_ino}".encode()) if key else None


def is_marked(folder: Path, said: object) -> bool:
    """Return whether `said` is this user's mark of the folder, and the user owns it with everything in it."""
    own = mark(folder)
    if own is None or not isinstance(said, str) or not hmac.compare_digest(own, ascii(said)[1:-1]):
        return False
    return all(path.lstat().st_uid == os.getuid() for path in (folder, *folder.rglob("*")))


def _signature(key: bytes, name: str, content: bytes) -> str:
    return hmac.new(key, name.encode() + b"\0" + hashlib.sha256(content).digest(), "sha256").hexdigest()
