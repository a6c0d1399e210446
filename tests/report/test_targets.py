"""Where a plot and a report are written: where they were told to, or nowhere with one line."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dr3_ray.cli import app as cli
from dr3_ray.errors import UserError
from dr3_ray.report.dataset import _targets

NAMES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "a", "é b", "new/deep/x", ".", "..", "file/", "folder", "x" * 300]),
        st.sampled_from(["", ".png", ".PNG", ".html", ".pdf", ".svg", ".tar", ".b", "."]),
    ),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file and a folder in it."""
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
@example("folder")
def test_a_plot_is_the_two_files_that_it_names_or_one_line(place: Path, name: str) -> None:
    try:
        png, page = _targets(Path(name))
    except UserError as error:
        assert "\n" not in str(error)
        assert (
            Path(name).name in ("", "..", "...png", "...PNG", "...html")
            or name.startswith("folder")
            or name.endswith((".pdf", ".svg"))
        )
        return
    name, suffix = str(Path(name)), Path(name).suffix
    stem = name[: -len(suffix)] if suffix.lower() in (".png", ".html") else name
    assert [png, page] == [Path(f"{stem}.png"), Path(f"{stem}.html")]


@pytest.mark.parametrize("name", ["file/x", "/proc/x", "x" * 300])
def test_a_place_where_no_plot_can_be_is_one_line(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["data", "plot", "embedded:breakout-replay?take=uniform:0.1", "--out", name])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith(f"error: {name}.png cannot be written (") and said.count("\n") == 1
    assert {path.name for path in place.iterdir()} == {"file", "folder.png"}


@pytest.mark.parametrize("kind", ["png", "PDF", ".pdf", "", "html", "s3://b/x", "../x", "pdf,png", "docx"])
def test_files_of_no_kind_are_one_line(demo: Path, place: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["report", str(demo), "--out", "out", "--also", kind])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: unknown kind of file") and said.count("\n") == 1
    assert not (place / "out").exists()
