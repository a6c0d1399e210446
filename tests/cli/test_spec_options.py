"""One thing may be written in several ways, on the command line and in YAML; nothing that is written is dropped."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.cli.app import app, main
from dr3_ray.cli.numbers import count, number
from dr3_ray.cli.spec_options import spec_above, spec_from
from dr3_ray.errors import UserError
from dr3_ray.limits import read_count
from dr3_ray.sweep.spec.spec import SweepSpec
from tests.cli.test_paths import commands

DATA = "embedded:breakout-replay"


@given(st.integers(1, 10**9))
def test_a_count_is_read_however_it_is_written(count: int) -> None:
    texts = [str(count), f"{count:_}", f" {count} "]
    texts += [f"{count // 1000}k", f"{count // 1000}K"] if count % 1000 == 0 else []
    texts += [f"{count / 1e6:.6f}M", f"{count / 1e9:.9f}e9"]
    assert {read_count(text) for text in texts} == {count}


@pytest.mark.parametrize(
    "text", ["", "k", "1.5", "10kk", "-3", "1e-3", "0.0001k", "ten", "1e999999999", "1,000", "nan"]
)
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it has to be a whole number"):
        read_count(text)
    with pytest.raises(UserError, match="steps: it has to be a whole number"):
        SweepSpec(datasets=[DATA], steps=text)


def test_counts_are_read_in_yaml_and_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    (file := tmp_path / "a.yaml").write_text(f"dataset: {DATA}\nsteps: 20k\nepisodes: 1e1\nbudget: 1k\n")
    spec = spec_from(file, {})
    assert (spec.steps, spec.evaluation_episodes, spec.budget) == (20_000, 10, 1000)
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--dataset", DATA, "--steps", "10q"])
    assert end.value.code == 2
    assert "Invalid value for '--steps': '10q': it has to be a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ways", "field", "value"),
    [
        (({"algorithm": ["DR3-CQL,BC"]}, {"algorithm": ["DR3-CQL", " BC"]}), "algorithms", ("DR3-CQL", "BC")),
        (({"coefficients": ["0,0.1"]}, {"coefficients": ["0", "0.1"]}), "coefficients", (0.0, 0.1)),
        (({"seeds": ["3,5"]}, {"seeds": ["3", "5"]}, {"seeds": ["3,", "5"]}), "seeds", (3, 5)),
        (({"seeds": ["2"]}, {"seeds": ["0,1"]}), "seeds", (0, 1)),
        (({"seeds": ["2,"]},), "seeds", (2,)),
        (({"log": ["tensorboard,wandb"]}, {"log": ["tensorboard", "wandb"]}), "log", ("tensorboard", "wandb")),
    ],
)
def test_lists_are_written_with_commas_or_by_repetition(ways: Any, field: str, value: Any) -> None:
    for given_ in ways:
        assert getattr(spec_above({"datasets": [DATA]}, given_), field) == value


def test_a_comma_in_the_name_of_a_folder_is_part_of_it(tmp_path: Path) -> None:
    (odd := tmp_path / "a,b").mkdir()
    spec = spec_above({}, {"dataset": [str(odd), f"{DATA},{DATA}?take=best:0.5"]})
    assert spec.datasets == (str(odd), DATA, f"{DATA}?take=best:0.5")


def test_a_mixture_in_a_list_is_told_of_its_commas() -> None:
    with pytest.raises(UserError, match=r"mix:b=0\.7… stands in a list, and has commas of its own: give it an option"):
        spec_above({}, {"dataset": [f"{DATA},mix:b=0.7,c=0.3"]})
    mixture = f"mix:{DATA}=0.7,{DATA}?take=best:0.5=0.3"
    assert spec_above({}, {"dataset": [mixture, f"{DATA},{DATA}?take=best:0.5"]}).datasets[1:] == (
        DATA,
        f"{DATA}?take=best:0.5",
    )


@pytest.mark.parametrize(
    ("names", "field"),
    [
        ({"dataset": DATA}, "datasets"),
        ({"datasets": DATA}, "datasets"),
        ({"dataset": [DATA], "algorithm": "BC"}, "algorithms"),
        ({"dataset": DATA, "episodes": 3}, "evaluation_episodes"),
        ({"dataset": DATA, "set": {"gamma": 0.9}}, "options"),
        ({"dataset": DATA, "axis": {"gamma": [0.9, 0.5]}}, "axes"),
    ],
)
def test_a_field_has_the_name_of_its_option_too(names: dict[str, Any], field: str) -> None:
    spec = SweepSpec(**names)
    assert spec.datasets == (DATA,) and getattr(spec, field) != SweepSpec.model_fields[field].default
    both = {**names, field: json.loads(spec.model_dump_json())[field]}
    if field not in names:
        with pytest.raises(UserError, match=f"and {field} are the same: leave out one of them"):
            SweepSpec(**both)


@pytest.mark.parametrize("name", ["set_", "axis"])
def test_an_option_that_is_given_twice_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="gamma is given twice"):
        spec_above({"datasets": [DATA]}, {name: ["gamma=0.9", "gamma=0.99"]})


@pytest.mark.parametrize("name", ["coefficients"])
def test_a_space_stands_alone(name: str) -> None:
    with pytest.raises(UserError, match="a space stands alone"):
        spec_above({"datasets": [DATA]}, {name: ['{"log_uniform": [0.1, 1]}', "0.3"]})


def test_a_run_directory_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=rf"run directory of a sweep: `dr3-ray sweep --resume {tmp_path}` goes on"):
        spec_from(tmp_path, {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"log": ["tensorbord"]}, "log.0: 'tensorbord' is unknown: did you mean 'tensorboard'?"),
        ({"search": {"method": "tpee", "trials": 3}}, "search.method: 'tpee' is unknown: did you mean 'tpe'?"),
        ({"retries": -1}, "retries: it has to be at least 0, not -1"),
        ({"retries": "many"}, "retries: it has to be a whole number, not 'many'"),
        ({"gpus": "all"}, "gpus: it has to be a number, not 'all'"),
        ({"options": [1]}, "options: it has to be names with values, not [1]"),
        ({"environment": 3}, "environment: it has to be a text, not 3"),
        ({"algorithms": 3}, "algorithms: it has to be a list, not 3"),
        ({"cpus": 0}, "cpus: it has to be more than 0, not 0"),
        ({"objective": "td_eror"}, "objective.0.metric: unknown metric 'td_eror': did you mean 'td_error'?"),
    ],
)
def test_mistakes_are_told_in_plain_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as told:
        SweepSpec(datasets=[DATA], **values)
    assert str(told.value) == message


def numbers():
    """Every option of every command that is a number: its command and name, what it is, and what typer is told."""
    for words, parameters in commands(app):
        for name, parameter in parameters.items():
            kind = get_args(parameter.annotation)[0]
            if {int, float} & {kind, *get_args(kind)}:
                option = " ".join((*words, name))
                yield pytest.param(int in {kind, *get_args(kind)}, get_args(parameter.annotation)[1].parser, id=option)


@pytest.mark.parametrize(("whole", "read"), [case for case in numbers() if case.id != "sweep keep_checkpoints"])
def test_every_number_is_read_by_the_same_rules_and_refused_in_our_words(whole, read):
    assert read, "give it **count(…) or **number(…)"
    assert read("1e1") == read(10) == 10 and (not whole or read("0.01k") == 10)
    for text in ("ten", "", "nan", "1.5" if whole else "one"):
        with pytest.raises(typer.BadParameter, match=r"it has to be a (whole )?number, such as"):
            read(text)


def test_bounds_are_told():
    assert count(1, 64)["parser"]("64") == 64 and number(0)["parser"]("0") == 0.0
    for read, text, said in (
        (count(1, 64), "65", "it has to be 1 or more, up to 64"), (count(1), "0", "it has to be 1 or more"),
        (number(0), "-1", "it has to be 0 or more"),
    ):  # fmt: skip
        with pytest.raises(typer.BadParameter, match=f"^'{text}': {said}$"):
            read["parser"](text)
