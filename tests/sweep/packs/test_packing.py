"""Members into packs."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.sweep.packs.packing import pack_members, structure

member = st.fixed_dictionaries(
    {
        "algorithm": st.sampled_from(["DR3-CQL", "DR3-DQN"]),
        "dataset": st.sampled_from(["a", "b"]),
        "batch_size": st.sampled_from([32, 64]),
        "critic_lr": st.floats(0, 1),
        "dr3_coeff": st.floats(0, 1),
        "seed": st.integers(0, 9),
    }
)


def plain(count, **values):
    return {f"{n:04d}": {"algorithm": "DR3-CQL", "seed": n, **values} for n in range(count)}


@given(configs=st.lists(member, min_size=1, max_size=60), limit=st.integers(1, 20), slots=st.integers(1, 9))
def test_every_member_is_in_one_pack_of_its_structure(configs, limit, slots):
    members = {f"{n:04d}": config for n, config in enumerate(configs)}
    packs = pack_members(members, limit, slots)
    assert Counter(each for pack in packs for each in pack.members) == Counter(list(members))
    assert len({pack.name for pack in packs}) == len(packs)
    sizes: dict[str, set[int]] = {}
    for pack in packs:
        (kind,) = {structure(config) for config in pack.members.values()}
        sizes.setdefault(kind, set()).add(len(pack.members))
        assert 1 <= len(pack.members) <= limit
    assert all(max(found) - min(found) <= 1 for found in sizes.values())
    assert len(packs) % slots == 0 or len(packs) == len(members)


@pytest.mark.parametrize(
    ("count", "limit", "slots", "sizes"),
    [(18, 16, 2, [9, 9]), (18, 16, 1, [9, 9]), (16, 16, 1, [16]), (40, 16, 2, [10] * 4), (3, 16, 8, [1, 1, 1])],
)
def test_all_slots_have_work(count, limit, slots, sizes):
    assert [len(pack.members) for pack in pack_members(plain(count), limit, slots)] == sizes


def test_numbers_and_seeds_share_a_pack_and_nothing_else_does():
    base = {"algorithm": "DR3-CQL", "seed": 0, "dr3_coeff": 0.0, "cql_alpha": 0.1, "hidden_sizes": [8], "steps": 10}
    for name, value in {"seed": 1, "dr3_coeff": 0.1, "cql_alpha": 1.0}.items():
        assert structure(base | {name: value}) == structure(base)
    for name, value in {"hidden_sizes": [8, 8], "steps": 20, "algorithm": "DR3-DQN", "dr3_form": "abs"}.items():
        assert structure(base | {name: value}) != structure(base)


def test_the_same_members_make_the_same_packs():
    assert pack_members(plain(7), 3, 2) == pack_members(plain(7), 3, 2)
