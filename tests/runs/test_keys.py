"""Whose a pickle is: signed by this user's key, owned by this user, and in the folder in which it was made."""

import os
import shutil
from pathlib import Path

import cloudpickle
import pytest

from dr3_ray.cluster.pickles import unpickle
from dr3_ray.errors import UserError
from dr3_ray.runs.keys import KEY, is_marked, is_signed, key_file, mark, sign, user_key

NAME = "made.pkl"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(KEY, str(tmp_path / "user" / "key"))
    return tmp_path / "user" / "key"


def signed(folder: Path) -> Path:
    folder.mkdir()
    (folder / NAME).write_bytes(cloudpickle.dumps({"mine": 1}))
    sign(folder, [NAME])
    return folder


def test_the_key_is_made_once_for_this_user_alone(key: Path) -> None:
    assert user_key() is None and not key.exists()
    assert user_key(create=True) == user_key(create=True) == user_key() == key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 64
    key.chmod(0o640)
    assert user_key() is None  # others may have read it


def test_by_default_it_lies_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(KEY)
    monkeypatch.setenv("DR3_RAY_CACHE", str(tmp_path / "cache"))
    assert key_file() == tmp_path / "cache" / "key"


def test_what_this_user_signed_is_read_and_nothing_else(key: Path, tmp_path: Path) -> None:
    folder = signed(tmp_path / "mine")
    assert unpickle(folder, NAME) == {"mine": 1}
    moved = folder.rename(tmp_path / "moved")
    assert unpickle(moved, NAME) == {"mine": 1}
    (moved / NAME).write_bytes(cloudpickle.dumps({"theirs": 1}))
    with pytest.raises(
        UserError, match=r"^.*moved holds pickles, which run code .* give --trust \(in Python trust=True"
    ):
        unpickle(moved, NAME)
    assert unpickle(moved, NAME, trust=True) == {"theirs": 1}


def test_another_user_s_signature_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = signed(tmp_path / "theirs")
    monkeypatch.setenv(KEY, str(tmp_path / "me" / "key"))
    for made in (False, True):
        assert (user_key(create=made) is not None) == made
        with pytest.raises(UserError, match="nothing shows that you made them"):
            unpickle(theirs, NAME)
    os.chown(signed(tmp_path / "given") / NAME, 12345, -1)  # root may
    assert not is_signed(tmp_path / "given", NAME, (tmp_path / "given" / NAME).read_bytes())


@pytest.mark.parametrize("said", [b"", b"{}", b"[1]", b'{"made.pkl": 3}', '{"made.pkl": "ä"}'.encode(), b"\x80\x04."])
def test_a_damaged_signature_is_none(said: bytes, tmp_path: Path) -> None:
    folder = signed(tmp_path / "mine")
    (folder / "signatures.json").write_bytes(said)
    assert not is_signed(folder, NAME, (folder / NAME).read_bytes())


def test_without_a_place_for_a_key_nothing_is_signed_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(KEY, str(tmp_path / "file" / "key"))
    folder = signed(tmp_path / "mine")
    assert [path.name for path in folder.iterdir()] == [NAME] and mark(folder) is None
    assert not is_marked(folder, None)


def test_a_mark_is_of_one_folder_and_of_one_owner(tmp_path: Path) -> None:
    folder = signed(tmp_path / "mine")
    said = mark(folder)
    assert is_marked(folder, said)
    assert not any(is_marked(folder, other) for other in (None, "", 3, "\u00e4", "\ud800", [said]))
    assert is_marked(folder.rename(tmp_path / "moved"), said)
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")  # what somebody sends back
    assert not is_marked(tmp_path / "copy", said)
    os.chown(tmp_path / "moved" / NAME, 12345, -1)
    assert not is_marked(tmp_path / "moved", said)
