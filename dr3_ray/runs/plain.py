"""Nested state as tensors in safetensors and all else in JSON: reading it runs no code, whoever wrote it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dr3_ray.errors import UserError, first_line

LEAVES = (type(None), bool, int, float, str)
DAMAGES = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, SafetensorError)


def write_plain(folder: Path, name: str, state: Any) -> None:
    """Write `state` to `NAME.json` and `NAME.safetensors` in a folder; equal states give equal bytes.

    Dicts, lists, tuples, numbers, text, None, tensors, and arrays and numbers of numpy come back as they are, to the
    bit.

    Raises:
        TypeError: something else is in it; says where.
    """
    tensors: dict[str, Tensor] = {}
    document = _encode(state, "", tensors)
    (folder / f"{name}.json").write_text(json.dumps(document))
    (folder / f"{name}.safetensors").write_bytes(save(_apart(tensors)))  # whose own files hide that there is no room


def read_plain(folder: Path, name: str) -> Any:
    """Return the state that `write_plain` wrote; tensors are on the CPU.

    Raises:
        UserError: it is not there, or damaged.
    """
    try:
        document = json.loads((folder / f"{name}.json").read_text())
        return _decode(document, load((folder / f"{name}.safetensors").read_bytes()))
    except DAMAGES as error:
        raise UserError(f"{folder / name} is damaged ({first_line(error)}): take another checkpoint") from None


def read_part(content: bytes, name: str) -> Any:
    """Return a value of the mapping that `write_plain` wrote, from the content of `NAME.json`; None without it.

    Raises:
        Any of DAMAGES: it is damaged, or holds tensors.
    """
    return _decode(json.loads(content)["dict"].get(name), {})


def is_plain(folder: Path, name: str) -> bool:
    """Return whether `write_plain` wrote something of this name there."""
    return (folder / f"{name}.json").is_file()


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if type(value) in LEAVES:
        return value
    if type(value) is list:
        return [_encode(item, f"{path}/{at}", tensors) for at, item in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [_encode(item, f"{path}/{at}", tensors) for at, item in enumerate(value)]}
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {"dict": {key: _encode(item, f"{path}/{key}", tensors) for key, item in value.items()}}
    if isinstance(value, Tensor):
        return {"tensor": _add(value, path, tensors)}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        held = torch.from_numpy(np.array(value, order="C"))
        return {"array" if isinstance(value, np.ndarray) else "number": _add(held, path, tensors)}
    raise TypeError(f"state{path} is a {type(value).__name__}, which a checkpoint without pickles cannot hold")


def _decode(document: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(document, list):
        return [_decode(item, tensors) for item in document]
    if not isinstance(document, dict):
        return document
    ((kind, content),) = document.items()
    match kind:
        case "dict":
            return {key: _decode(item, tensors) for key, item in content.items()}
        case "tuple":
            return tuple(_decode(item, tensors) for item in content)
        case "tensor":
            return tensors[content]
        case "array":
            return tensors[content].numpy()
        case "number":
            return tensors[content].numpy()[()]
    raise ValueError(f"{kind!r} is unknown")


def _add(value: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    """Return the name under which the tensor is kept."""
    name = path.removeprefix("/")
    while name in tensors:  # "a/b" may be one key, or two
        name += "'"
    tensors[name] = value.detach().cpu().contiguous()
    return name


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return each tensor on storage of its own, as safetensors want them."""
    seen: set[int] = set()
    apart = {}
    for name, value in tensors.items():
        storage = value.untyped_storage()
        shares = storage.nbytes() != value.nbytes or storage.data_ptr() in seen
        seen.add(storage.data_ptr())
        apart[name] = value.clone() if shares else value
    return apart
