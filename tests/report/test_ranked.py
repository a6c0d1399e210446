"""What `dr3-ray select` has left in a run stands on its page."""

import re

import pytest

from dr3_ray.errors import UserError
from dr3_ray.report import write_report
from dr3_ray.report.reader import read_tables

HEAD = "member,step,configuration,fqe\n"


def ranked(run, members):
    rows = [f"{member},20000,c₀ {row['dr3_coeff']:g},0.5\n" for member, row in members.iterrows()]
    (run / "selection.csv").write_text(HEAD + "".join(rows))
    return (run / "selection.csv").read_bytes()


def shown(run, capsys):
    from rich.console import Console

    report = write_report(run)
    Console(width=200).print(report.table)
    found = re.search(r"<p>(`dr3-ray select`.*?)</p>", report.page.read_text())
    return found and found[1], capsys.readouterr().out


def test_a_selection_is_linked_and_told(torn, capsys):
    assert shown(torn, capsys)[0] is None
    members = read_tables(torn).members
    content = ranked(torn, members)
    said = "`dr3-ray select` has ranked 6 configurations without returns"
    page, terminal = shown(torn, capsys)
    assert page == f'{said}: <a href="selection.csv">selection.csv</a>'
    assert (torn / "report" / "selection.csv").read_bytes() == content
    assert f"{said}: {torn}/selection.csv" in "".join(terminal.splitlines())
    ranked(torn, members.iloc[3:])
    page, _ = shown(torn, capsys)
    assert page.startswith(
        "`dr3-ray select` has ranked 5 configurations without returns; 3 members have finished since"
    )


def test_settings_of_several_algorithms_are_told_apart(run_writer, tmp_path, capsys):
    writer = run_writer(tmp_path / "run", axes=["algorithm"])
    for algorithm in ("DR3-CQL", "DR3-IQL"):
        writer.add(algorithm=algorithm, dr3_coeff=0.0)
    run = writer.write()
    ranked(run, read_tables(run).members)
    assert shown(run, capsys)[0].startswith("`dr3-ray select` has ranked 2 configurations")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"member,step,configuration\nx,later,c\n"])
def test_a_file_that_is_no_selection_is_named(torn, content):
    (torn / "selection.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"selection.csv is not what `dr3-ray select` writes \(.*: select again, or"):
        write_report(torn)
