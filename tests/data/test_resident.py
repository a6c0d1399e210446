"""Columns on a device: here the CPU itself; tests/gpu has a GPU."""

import pytest
import torch

from dr3_ray.data import load_dataset, resident
from dr3_ray.data.n_step import FOLLOWED, gather_n_step
from dr3_ray.data.resident import Resident

CPU = torch.device("cpu")


@pytest.mark.parametrize("source", ["embedded:breakout-replay", "embedded:pendulum-replay"])
def test_rows_are_those_of_the_data_set(source: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dr3_ray.data.resident.AT_ONCE", 1000)
    data = load_dataset(source)
    columns = sorted({*FOLLOWED, "observations", "actions", "next_observations", "next_actions_valid"})
    here, indices = Resident(data, columns, CPU), torch.randint(len(data), (3, 50))
    for ours, theirs in (
        (here.gather(indices, columns), data.gather(indices, columns)),
        (gather_n_step(here, indices, columns, 3), gather_n_step(data, indices, columns, 3)),
    ):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]), name


def test_numbers_of_0_and_1_take_a_byte_until_there_is_another(make_data, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dr3_ray.data.resident.AT_ONCE", 50)
    data = make_data("discrete", shape=(8, 8, 3))
    data.columns["rewards"] = torch.zeros(200)
    data.columns["rewards"][150] = 0.5
    columns = ("observations", "rewards", "terminateds")
    here = Resident(data, columns, CPU)
    assert here.row_bytes == 8 * 8 * 3 + 4 + 1
    assert len(here) == 200 and here.episodes.keys() == data.episodes.keys()
    found, expected = (each.gather(torch.arange(200), columns) for each in (here, data))
    for name in columns:
        assert found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name])


def test_a_cpu_reads_the_files(make_data):
    data = make_data("discrete")
    assert resident.resident(data, ("rewards",), CPU) is data


def test_without_room_the_data_stay_where_they_are(make_data, monkeypatch: pytest.MonkeyPatch):
    data, gpu = make_data("discrete"), torch.device("cuda")
    needed = 200 * 2 * 3 * 4
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * needed - 2, 10 * needed))
    with pytest.warns(UserWarning, match="batches come from the host, which is slower"):
        assert resident.resident(data, ("observations",), gpu) is data
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * needed, 10 * needed))
    asked: list[object] = []
    monkeypatch.setattr(Resident, "__init__", lambda self, *given: asked.extend(given))
    assert isinstance(resident.resident(data, ("observations",), gpu), Resident)
    assert asked == [data, ("observations",), gpu]
