"""The manifest of a checkpoint: a digest of every file, by which anyone tells whether it is as it was written."""

import hashlib
import json
from pathlib import Path

from dr3_ray.stores import inside

MANIFEST = "manifest.json"


def write_manifest(directory: Path) -> None:
    """Write the digests of all files of a checkpoint, by which `is_whole` tells whether they are as they were."""
    files = [path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST]
    digests = {str(path.relative_to(directory)): digest_of(path) for path in files}
    (directory / MANIFEST).write_text(json.dumps(digests))


def is_whole(directory: Path) -> bool:
    """Return whether a checkpoint has all the files that its manifest names, as they were written."""
    manifest = read_manifest(directory) or {}
    try:
        return bool(manifest) and all(digest_of(directory / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError, RecursionError):  # also no JSON object
        return False


def read_manifest(directory: Path) -> dict[str, str] | None:
    """Return the digests of a checkpoint's files, by name; None without such a list, or if names lead away."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        for name in manifest:
            inside(directory, name)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) else None


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
