"""State without pickles comes back to the bit, whatever it is; damage is one line, and reading runs nothing."""

import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dr3_ray.errors import UserError
from dr3_ray.runs.plain import read_plain, write_plain

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
TENSORS = ARRAYS.map(torch.as_tensor) | ARRAYS.map(lambda each: torch.as_tensor(each).to(torch.bfloat16))
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TENSORS | ARRAYS | ARRAYS.map(lambda a: a[()])
)
KEYS = st.text(max_size=4) | st.sampled_from(["a", "a/b", "b", "0", "dict", "tensor"])
STATES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)


def bits(value: Any) -> Any:
    """What has to be equal, types and all; NaN with its bits."""
    if isinstance(value, torch.Tensor):
        flat = value.clone().flatten()
        return "tensor", str(value.dtype), tuple(value.shape), flat.view(torch.uint8).tolist() if len(flat) else []
    if isinstance(value, np.ndarray | np.generic):
        return type(value).__name__, value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: bits(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [bits(each) for each in value]
    if isinstance(value, float):
        return "float", "nan" if math.isnan(value) else value.hex()
    return type(value).__name__, value


@settings(deadline=None, max_examples=60)
@given(STATES)
def test_everything_comes_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    folder = tmp_path_factory.mktemp("state")
    write_plain(folder, "state", state)
    assert bits(read_plain(folder, "state")) == bits(state)
    before = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    write_plain(folder, "state", state)
    assert [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())] == before


def test_tensors_that_share_storage_are_apart_afterwards(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_plain(tmp_path, "state", {"whole": whole, "again": whole, "rows": whole[2:4], "turned": whole.view(2, 3).T})
    found = read_plain(tmp_path, "state")
    found["whole"][:] = -1.0
    assert found["again"].tolist() == whole.tolist() and found["rows"].tolist() == [2.0, 3.0]
    assert torch.equal(found["turned"], whole.view(2, 3).T)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": [set()]}, np.array(["text"]), np.array([object()]), 1j])
def test_what_is_not_plain_is_refused_where_it_is_written(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^state.* is a .*, which a checkpoint without pickles cannot hold$"):
        write_plain(tmp_path, "state", {"a": value})


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damage_is_one_line_and_pickles_are_not_read(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder, marker = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("marker") / "ran"
    write_plain(folder, "state", {"a": torch.arange(4.0), "b": [1, (2.0, None)], "c": np.zeros(2)})
    path = folder / data.draw(st.sampled_from(["state.json", "state.safetensors"]))
    content = path.read_bytes()
    other = data.draw(
        st.sampled_from([pickle.dumps(Evil(marker)), b"", b"[" * 100_000, b"{}", b'{"dict": 3}', b'{"tensor": "z"}'])
        | st.integers(0, len(content) - 1).map(lambda end: content[:end])
        | st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)).map(
            lambda at: content[: at[0]] + bytes([at[1]]) + content[at[0] + 1 :]
        )
    )
    path.write_bytes(other)
    try:
        read_plain(folder, "state")  # a changed number is none that can be seen here: checkpoints have digests
    except UserError as error:
        assert "is damaged (" in str(error) and "\n" not in str(error)
    assert not marker.exists()


def test_evil_is_evil(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()
