"""Whatever a source makes a library raise is one line; what does not fit together is refused or has a name."""

import io
import re
import zipfile

import h5py
import numpy as np
import pytest

from dr3_ray.data import load_dataset
from dr3_ray.data.importers import open_source
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
N = 12


def refused(run, tmp_path):
    """The one line of a refusal, after which nothing is left."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        run()
    assert sorted(tmp_path.rglob("*")) == before
    said = str(error.value)
    assert "\n" not in said and ": " in said and len(said) - 2 * len(str(tmp_path)) < 400, said
    return said


def write(source, out, **options):
    """Import by the layout alone; the names of the checks that found something."""
    manifest = import_source(lambda: open_source(str(source), Options(**options)), out)
    return [note.partition(":")[0] for note in manifest.provenance.notes]


def table(**changed):
    """Twelve rows of two episodes, arrays by our names."""
    rng = np.random.default_rng(0)
    seen = np.cumsum(rng.normal(size=(N, 2)), 0)
    rows = {"observations": seen, "actions": np.tanh(seen[:, :1]), "rewards": np.arange(N) * 1.0}
    return rows | {"truncateds": np.arange(N) % 6 == 5} | changed


def zipped(path, arrays, method):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, values in arrays.items():
            content = io.BytesIO()
            np.save(content, values)
            archive.writestr(f"{name}.npy", content.getvalue())


def flagged(content, method=None):
    """A zip file whose members say that they are encrypted, or of another method."""
    content = bytearray(content)
    for mark, flags, methods in ((b"PK\x01\x02", 8, 10), (b"PK\x03\x04", 6, 8)):
        at = -1
        while (at := content.find(mark, at + 1)) >= 0:
            if method is None:
                content[at + flags] |= 1
            else:
                content[at + methods] = method
    return bytes(content)


def noise(content, begin, length):
    return content[:begin] + np.random.default_rng(0).bytes(length) + content[begin + length :]


ARCHIVES = {
    "flipped, stored": (zipfile.ZIP_STORED, lambda content: noise(content, 250, 1), "cannot be read"),
    "flipped, deflated": (zipfile.ZIP_DEFLATED, lambda content: noise(content, 60, 40), "cannot be read"),
    "flipped, bz2": (zipfile.ZIP_BZIP2, lambda content: noise(content, 60, 40), "cannot be read"),
    "flipped, lzma": (zipfile.ZIP_LZMA, lambda content: noise(content, 60, 40), "cannot be read"),
    "encrypted": (zipfile.ZIP_STORED, flagged, "is encrypted"),
    "unknown method": (zipfile.ZIP_STORED, lambda content: flagged(content, 99), "compression method"),
    "cut off": (zipfile.ZIP_STORED, lambda content: content[:-40], "it is cut off"),
    "empty": (zipfile.ZIP_STORED, lambda content: b"", "it is empty"),
    "nothing in it": (zipfile.ZIP_STORED, lambda content: b"PK\x05\x06" + bytes(18), "holds no arrays"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_damaged_archives(tmp_path, case):
    method, spoil, says = ARCHIVES[case]
    path = tmp_path / "x.npz"
    zipped(path, table(), method)
    path.write_bytes(spoil(path.read_bytes()))
    for source in (path, f"npz:{path}"):
        assert says in refused(lambda source=source: write(source, tmp_path / "out"), tmp_path)


class Gone:
    """What a pickle needs that is not there when it is read."""

    def __reduce__(self):
        return __import__, ("no_such_module",)


def test_a_pickle_whose_module_is_missing(tmp_path):
    objects = np.empty(N, object)
    objects[:] = [Gone() for _ in range(N)]
    np.savez(tmp_path / "x.npz", **table(observations=objects))
    said = refused(lambda: write(tmp_path / "x.npz", tmp_path / "out", trust=True), tmp_path)
    assert "No module named 'no_such_module'): install what its author pickled it with" in said


def demonstration(steps=4, **changed):
    """The arrays of a demonstration of robomimic; None leaves one out."""
    at = np.arange(steps + 1.0)
    arrays = {
        "obs/arm": np.stack([at[:-1]] * 2, 1),
        "next_obs/arm": np.stack([at[1:]] * 2, 1),
        "actions": np.tanh(at[:-1, None]),
        "rewards": (np.arange(steps) == steps - 1) * 1.0,
        "dones": (np.arange(steps) == steps - 1).astype(int),
    }
    return {name: values for name, values in (arrays | changed).items() if values is not None}


def robomimic(path, *demos):
    with h5py.File(path, "w") as file:
        for number, demo in enumerate(demos):
            for name, values in demo.items():
                file[f"data/demo_{number}/{name}"] = values
    return path


FLAT = {"obs/arm": None, "next_obs/arm": None}
DEMONSTRATIONS = {
    "more observations": (demonstration(**{"obs/arm": np.zeros((5, 2))}), "lengths differ: observations/arm has 5"),
    "more actions": (demonstration(actions=np.zeros((5, 1))), "actions has 5"),
    "fewer rewards": (demonstration(rewards=np.zeros(3)), "cannot be read|rewards has 3"),
    "more flags": (demonstration(dones=np.zeros(5)), "cannot be read|has 5"),
    "fewer next observations": (demonstration(**{"next_obs/arm": np.zeros((3, 2))}), "next_observations/arm has 3"),
    "a number for actions": (demonstration(actions=np.float64(1)), "cannot be read|no rows"),
    "an array for parts": (demonstration(**FLAT, obs=np.zeros((4, 2))), "cannot be read"),
    "a part of parts": (demonstration(**{"obs/more/x": np.zeros((4, 2))}), "cannot be read"),
    "another part": (demonstration(**{"obs/more": np.zeros(4), "next_obs/more": np.zeros(4)}), "observations/more is"),
    "a part less": (demonstration(**{"next_obs/arm": None}), "next_observations/arm is missing"),
    "another shape": (demonstration(actions=np.zeros((4, 3))), r"actions has rows of shape \(3,\)"),
    "a link to nowhere": (demonstration(actions=h5py.SoftLink("/nowhere")), "has no actions|cannot be read"),
    "a group for an array": (demonstration(actions=None, **{"actions/x": np.zeros(4)}), "cannot be read"),
}


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("case", DEMONSTRATIONS)
def test_demonstrations_that_do_not_fit_together(tmp_path, case, place):
    demo, says = DEMONSTRATIONS[case]
    demos = [demonstration(), demonstration()]
    demos[place] = demo
    path = robomimic(tmp_path / "r.hdf5", *demos)
    said = refused(lambda: write(path, tmp_path / "out"), tmp_path)
    assert not place or re.search(says, said), said  # the first one says what is expected of the others


def test_a_demonstration_without_steps_is_passed_over(tmp_path):
    path = robomimic(tmp_path / "r.hdf5", demonstration(0), demonstration(4), demonstration(0), demonstration(3))
    write(path, tmp_path / "out")
    assert load_dataset(tmp_path / "out").episodes["lengths"].tolist() == [4, 3]
    path = robomimic(tmp_path / "none.hdf5", demonstration(0))
    assert "there are no rows to write" in refused(lambda: write(path, tmp_path / "none"), tmp_path)


@pytest.mark.parametrize("shaped", [True, False])
def test_dones_where_every_step_has_a_reward_are_doubtful(tmp_path, shaped):
    rewards = np.full(4, 0.3) if shaped else np.array([0, 0, 0, 1.0])
    path = robomimic(tmp_path / "r.hdf5", demonstration(rewards=rewards))
    assert ("done" in write(path, tmp_path / "out")) == shaped


@pytest.mark.parametrize("begin", range(0, 2000, 97))
def test_noise_in_hdf5(tmp_path, begin):
    rows = table()
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards"):
            file.create_dataset(name, data=rows[name], compression="gzip")
        file["terminals"], file["timeouts"] = np.zeros(N), rows["truncateds"]
    content = noise((tmp_path / "x.hdf5").read_bytes(), begin, 60)
    (tmp_path / "x.hdf5").unlink()
    (tmp_path / f"{begin}.hdf5").write_bytes(content)
    try:
        write(f"d4rl:{tmp_path / f'{begin}.hdf5'}", tmp_path / "out")
    except UserError as error:
        assert "\n" not in str(error) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_hdf5_files_that_are_cut_off(tmp_path, share):
    path = robomimic(tmp_path / "r.hdf5", demonstration())
    content = path.read_bytes()
    path = tmp_path / "cut.hdf5"
    path.write_bytes(content[: int(share * len(content))])
    for source in (path, f"robomimic:{path}"):
        said = refused(lambda source=source: write(source, tmp_path / "out"), tmp_path)
        assert ("is cut off" if share else "is empty") in said
