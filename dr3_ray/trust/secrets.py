"""Keys and passwords in URIs: masked in all that is written and printed, and put back where a store is opened.

A specification holds masked URIs alone. What they stand for is known to this process, lies in a file of the run that
only its user can read, and reaches the workers of a cluster through Ray's memory (`dr3_ray.cluster.keys`).
"""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

MASK = "***"
KEYS = "keys.json"  # in a run directory; readable by its owner alone
SHORTEST = 6  # characters of what is masked wherever it stands; shorter ones only in their place in a URI
LONG = 12  # of what may be a key and not a name
VARIABLES = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD", "RAY_AUTH_TOKEN", "HF_TOKEN",
)  # fmt: skip
NAMES = frozenset(("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle"))  # whose user is no key
TOKENS = frozenset(("s3", "s3a", "gs", "gcs", "http", "https"))  # whose user is one without a password, too
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^\s'\"<>`|\\]+)")
_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)([^\s'\"<>`|\\]+)")  # a URI that has become a path
_SECRET = re.compile(
    r"(?i)([?&;](?:[\w.%-]*(?:key|secret|token|passw|pwd|passphrase|credential|signature)[\w.%-]*|sig|sas|auth|pass)=)"
    r"([^&#;]*)"
)
_AUTHORITY = re.compile(r"([^/?#]*)@")  # greedy: a password may have @
_UNQUOTED = re.compile(r"([^/?#@\s]*:(?!\d+(?:[/?#]|$))[^\s@]*)@")  # a secret with / in it
_INNER = re.compile(r"(?i)((?::|%3A)(?://|%2F%2F))([^/@&#?]*?(?::|%3A)[^/@&#?]*?)(@|%40)")  # a URI in an option

_real: dict[str, str] = {}  # what masked URIs stand for
_known: set[str] = set()


class _Parts(NamedTuple):
    """A URI: `scheme://user@rest`; `user` is None without an @."""

    scheme: str
    user: str | None
    rest: str


def masked(text: str) -> str:
    """Return a text without the keys and passwords in its URIs, and without those that this process knows."""
    clean = _URI.sub(lambda match: _masked_uri(match.group()), text)
    clean = _COLLAPSED.sub(lambda match: _masked_uri(f"{match[1]}://{match[2]}").replace("://", ":/", 1), clean)
    for secret in sorted(_known | _of_environment(), key=len, reverse=True):
        clean = clean.replace(secret, MASK)
    return clean


def remember(value: Any) -> Any:
    """Return a URI, or whatever holds some, with its keys masked; `real` knows them from now on."""
    if isinstance(value, dict):
        return {name: remember(item) for name, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(map(remember, value))
    if type(value) is not str or "://" not in value:
        return value
    hidden = _masked_uri(value)
    if hidden != value and MASK not in value:
        _real[hidden] = value
        _known.update(_secrets_of(value))
    return hidden


def real(uri: str) -> str:
    """Return the URI with its keys; without unknown ones, so that the environment's hold."""
    if MASK not in uri:
        return uri
    known = _real.get(max((secret for secret in _real if _leads_to(secret, uri)), key=len, default=""), "")
    scheme, user, rest = _parts(uri)
    _, real_user, real_rest = _parts(known) if known else ("", None, "")
    values = {match[1][1:]: match[2] for match in _SECRET.finditer(real_rest)}

    def restored(option: re.Match[str]) -> str:
        value = values.get(option[1][1:], "") if option[2] == MASK else option[2]
        return option[1] + value if value or option[2] != MASK else ""

    if user is not None and MASK in user:
        user = real_user if real_user is not None else user.replace(f":{MASK}", "").replace(MASK, "") or None
    path, mark, query = rest.partition("?")
    query, hash_, fragment = query.partition("#")
    query = _SECRET.sub(restored, f"?{query}")[1:] if mark else ""
    for inner in _INNER.finditer(real_rest):
        query = query.replace(MASK, inner[2], 1)
    return f"{scheme}://{'' if user is None else f'{user}@'}{path}{'?' if query else ''}{query}{hash_}{fragment}"


def known_for(text: str) -> list[str]:
    """Return the URIs with keys that stand masked in a text."""
    return [uri for hidden, uri in _real.items() if hidden in text]


def keep_keys(folder: Path, text: str) -> None:
    """Write the keys of masked URIs in a text to a file that nobody else can read; without keys, no file."""
    if not (uris := known_for(text)):
        return
    path = folder / KEYS
    partial = path.with_name(f".{KEYS}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(uris, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def recall_keys(folder: Path) -> None:
    """Remember the keys that `keep_keys` wrote; without a readable file the environment's hold."""
    try:
        keys = json.loads((folder / KEYS).read_text())
    except (OSError, ValueError, RecursionError):
        return
    remember([key for key in keys if type(key) is str] if isinstance(keys, list) else [])


def _masked_uri(uri: str) -> str:
    scheme, user, rest = _parts(uri)
    if user is not None:
        name, colon, _ = user.partition(":")
        if colon and _kind(scheme) in NAMES:
            user = f"{name}:{MASK}"
        elif colon or _kind(scheme) in TOKENS:
            user = MASK
    path, mark, query = rest.partition("?")
    query = _SECRET.sub(lambda match: match[1] + (match[2] and MASK), f"?{query}")[1:] if mark else ""
    query = _INNER.sub(rf"\1{re.escape(MASK)}\3".replace("\\*", "*"), query)
    return f"{scheme}://{'' if user is None else f'{user}@'}{path}{mark}{query}"


def _kind(scheme: str) -> str:
    return scheme.lower().partition("+")[0]


def _parts(uri: str) -> _Parts:
    scheme, _, rest = uri.partition("://")
    match = _AUTHORITY.match(rest) or (_UNQUOTED.match(rest) if scheme.lower() != "file" else None)
    return _Parts(scheme, match[1], rest[match.end() :]) if match else _Parts(scheme, None, rest)


def _leads_to(kept: str, uri: str) -> bool:
    """Return whether a masked URI is the other one, or of a folder that it lies in."""
    outer, inner = (address.partition("#")[0].partition("?")[0].rstrip("/") for address in (kept, uri))
    return inner == outer or inner.startswith(f"{outer}/")


def _secrets_of(uri: str) -> set[str]:
    """Return the parts of a URI that are masked, as they stand there and as they are meant."""
    scheme, user, rest = _parts(uri)
    name, _, password = (user or "").partition(":")
    secrets = [password, *([name] if _kind(scheme) not in NAMES and len(name) >= LONG else [])]
    secrets += [match[2] for match in _SECRET.finditer(rest)]
    secrets += [part for match in _INNER.finditer(rest) for part in re.split("(?i):|%3A", match[2])[1:]]
    forms = {form for secret in secrets for form in (secret, unquote(secret), quote(unquote(secret), safe=""))}
    return {form for form in forms if len(form) >= SHORTEST}


def _of_environment() -> set[str]:
    return {value for name in VARIABLES if len(value := os.environ.get(name, "")) >= SHORTEST}
