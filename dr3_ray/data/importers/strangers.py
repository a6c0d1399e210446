"""What looks like data and is read by no importer: what it is, and what to do with it."""

import json
from contextlib import suppress
from pathlib import Path

LOOKED_AT = 20  # files of a folder
PICKLED = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))  # how a pickle begins
FORMS = {
    ".npy": "one array: save all of them in one file with numpy.savez",
    ".xlsx": "a spreadsheet: save it as CSV",
    ".xls": "a spreadsheet: save it as CSV",
    ".ods": "a spreadsheet: save it as CSV",
    ".zip": "an archive: unpack it",
    ".tar": "an archive: unpack it",
    ".tgz": "an archive: unpack it",
    ".mat": "a file of MATLAB: read its arrays in Python, and give them to dr3_ray.data.from_arrays",
}


def stranger(path: Path) -> str:
    """Return what a file or folder is and what to do with it, as in `a pickle: …`; empty if that is not known."""
    if path.is_dir():
        return _folder(path)
    with path.open("rb") as file:
        begins = file.read(2**12)
    if begins.startswith(PICKLED):
        return (
            "a pickle, which can run code when it is read: if you trust its author, load it in Python, and give its "
            "episodes to dr3_ray.data.from_episodes, or its arrays to from_arrays"
        )
    if b'"type": "SampleBatch"' in begins or b'"type":"SampleBatch"' in begins:
        return "a recording of RLlib's old API stack: record it with the new one"
    if ".tfrecord" in path.name:
        return "a file of TensorFlow: write its episodes as a Parquet table with the column steps, as RLDS has them"
    return FORMS.get(".tgz" if path.name.lower().endswith(".tar.gz") else path.suffix.lower(), "")


def _folder(path: Path) -> str:
    if any((path / name).exists() for name in (".zgroup", "zarr.json", ".zattrs")):
        return "a folder of Zarr: read its arrays in Python, and give them to dr3_ray.data.from_arrays"
    with suppress(OSError, ValueError, AttributeError):
        about = json.loads((path / "data" / "metadata.json").read_text())
        name, whole = str(about.get("dataset_id", "")), str(path.resolve())
        if name and whole.endswith(f"/{name}"):
            return f"a data set of Minari: set MINARI_DATASETS_PATH={whole.removesuffix(f'/{name}')}, say minari:{name}"
        if name:
            return (
                f"the data set {name} of Minari: put it below MINARI_DATASETS_PATH by that name, and say minari:{name}"
            )
    inner = (file for file in sorted(path.iterdir())[:LOOKED_AT] if file.is_file())
    return next((f"{what} (its {file.name})" for file in inner if (what := stranger(file))), "")
