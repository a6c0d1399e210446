"""What a run directory is read as, and what is said when it is none."""

import json
import os

import pandas as pd
import pytest

from dr3_ray.errors import UserError
from dr3_ray.report.html import write_report
from dr3_ray.report.reader import read_tables
from tests.cli.test_cli import run as main_of


def test_the_last_record_of_a_member_wins_and_a_torn_line_is_ignored(demo):
    run = read_tables(demo)
    assert len(run.members) == 18
    assert set(run.members["status"]) == {"finished"}
    assert run.coefficients == [0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1]
    assert run.facets == ["algorithm", "dataset"]
    assert (run.members["last_step"] == 20_000).all()
    assert len(run.histories) == 18 * 21


def test_axes_besides_the_coefficient_become_facets_in_numeric_order(new_run):
    writer = new_run(axes=("dr3_coeff", "critic_lr", "hidden"))
    for rate in (10, 9, None):
        for hidden in ([64], [256, 256]):
            writer.add(critic_lr=rate, hidden=hidden)
    run = read_tables(writer.write())
    assert run.facets == ["algorithm", "dataset", "critic_lr", "hidden"]
    assert set(run.members["critic_lr"]) == {"9", "10", "\N{EN DASH}"}
    assert set(run.members["hidden"]) == {"[64]", "[256, 256]"}


def test_numbers_of_an_axis_keep_their_order(new_run):
    writer = new_run(axes=("dr3_coeff", "batch_size"))
    for size in (1024, 32, 256):
        writer.add(batch_size=size)
    assert read_tables(writer.write()).members["batch_size"].tolist() == ["32", "256", "1024"]


def test_a_sweep_without_any_evaluation_yet_can_be_read(new_run):
    writer = new_run()
    writer.add("running", upto=-1)
    run = read_tables(writer.write())
    assert run.members["last_step"].tolist() == [0]
    assert run.histories.empty
    assert run.unfinished == 1


def test_evaluations_written_twice_count_once_and_unknown_members_not_at_all(new_run):
    writer = new_run()
    writer.add()
    writer.tables.append(writer.tables[0])
    writer.add(seed=1)
    del writer.records[-1]
    assert len(read_tables(writer.write()).histories) == 21


def test_the_error_of_a_member_is_one_line(new_run):
    writer = new_run()
    member = writer.add("failed", "Traceback:\n  line 1\nValueError: no", upto=-1)
    assert read_tables(writer.write()).members.loc[member, "error"] == "Traceback: line 1 ValueError: no"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("run.json", None, "whole command"),
        ("run.json", b'{"format": 1', "damaged"),
        ("run.json", b'{"format": 7}', "format 7"),
        ("run.json", b"[]", "whole command"),
        ("index.jsonl", None, "index.jsonl is missing: `dr3-ray sweep --resume .* rebuilds it"),
        ("index.jsonl", b"", "index.jsonl is empty: `dr3-ray sweep --resume .* rebuilds it"),
        ("index.jsonl", b'{"member": "a", "status": "finished", "config": {}}\n', "not a member's"),
        ("index.jsonl", b'{"member": "a", "status": "well", "config": {}}\n', "damaged at line 1"),
        ("index.jsonl", b"{\n{}\n", "damaged"),
        ("histories.parquet", b"PAR1 and then it stops", "damaged"),
        ("histories.parquet", b"", "damaged"),
    ],
)
def test_a_directory_that_is_no_run_or_torn_is_refused_in_one_line(torn, file, content, said):
    if content is None:
        (torn / file).unlink()
    else:
        (torn / file).write_bytes(content)
    with pytest.raises(UserError, match=said) as refused:
        read_tables(torn)
    assert "\n" not in str(refused.value)
    assert str(torn) in str(refused.value)


@pytest.mark.parametrize("where", ["nothing-here", "torn/run.json"])
def test_a_path_that_is_no_directory_is_refused(torn, where):
    with pytest.raises(UserError, match="not a run directory"):
        read_tables(torn.parent / where)


def test_histories_of_something_else_are_refused(torn):
    pd.DataFrame({"step": [1]}).to_parquet(torn / "histories.parquet")
    with pytest.raises(UserError, match="lacks the column member"):
        read_tables(torn)


def test_a_truncated_parquet_file_is_refused(torn):
    content = (torn / "histories.parquet").read_bytes()
    (torn / "histories.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        read_tables(torn)


def test_run_json_names_the_run(torn):
    info = json.loads((torn / "run.json").read_text())
    (torn / "run.json").write_text(json.dumps(info | {"name": ""}))
    assert read_tables(torn).name == "torn"


def test_keys_in_another_s_index_are_shown_nowhere(torn, capsys):
    index = torn / "index.jsonl"
    uri = "s3://PLANTEDKEY01:PLANTEDSECRET01@bucket/data?endpoint_override=http://h:9&session_token=PLANTEDTOKEN1"
    dataset = read_tables(torn).members["dataset"].iloc[0]
    index.write_text(index.read_text().replace(json.dumps(dataset), json.dumps(uri)))
    assert "PLANTED" in index.read_text()
    write_report(torn, also=("md", "tex"))
    assert main_of("report", str(torn), "--json") == 0
    said = capsys.readouterr()
    assert "PLANTED" not in said.out + said.err and "bucket" in said.out
    for path in (torn / "report").rglob("*"):
        assert path.is_dir() or b"PLANTED" not in path.read_bytes(), path


@pytest.mark.parametrize("name", ["run.json", "index.jsonl"])
@pytest.mark.parametrize("other", ["pipe", "device"])
def test_what_never_ends_is_no_file_of_a_run(torn, name, other):
    (torn / name).unlink()
    os.mkfifo(torn / name) if other == "pipe" else (torn / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"pipe|index\.jsonl is empty"):
        read_tables(torn)
