"""The configurations of members that go on from trained ones."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dr3_ray.algorithms.registry import find
from dr3_ray.data import Dataset, load_dataset
from dr3_ray.data.mixture_names import MixtureName, is_mixture
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded, check_same, shown
from dr3_ray.runs.identity import LENGTH, OF_PARENT, PARENT, canonical, member_id
from dr3_ray.sweep.packs.packing import structure
from dr3_ray.sweep.parents import Parent
from dr3_ray.sweep.spec.names import options_of
from dr3_ray.sweep.spec.problems import members_of
from dr3_ray.sweep.spec.space import names_of
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.training.inheriting import is_of_members
from dr3_ray.training.member import Member, build_networks
from dr3_ray.training.saved import PREFIX

STATISTICS = "statistics"  # the fingerprint of the data whose statistics networks are used to, where they are others
REGULARIZED = ("dr3_multiplier.",)  # networks of regularisers, which a member may lack
OWN = {*LENGTH, "environment", "evaluation_episodes", "algorithm", "halving", "dataset", "data_fingerprint"}
Say = Callable[[str], None]


def children(spec: SweepSpec, parents: Sequence[Parent], say: Say = lambda text: None) -> dict[str, Config]:
    """Return the members that go on from these parents, by their hash: of each, on every data set, by every axis.

    An option, coefficient, seed or data set that is not given is the parent's. First steps in which something differs
    (`*_steps`) are over, unless they are given. A configuration says which parent it has and what that one had where
    it differs.

    Raises:
        UserError: as `problems.members`; or a parent does not fit the data or the options.
    """
    told: set[str] = set()
    checked: set[tuple[int, str, str]] = set()
    configs: dict[str, Config] = {}

    def once(text: str) -> None:
        if text not in told:
            told.add(text)
            say(text)

    for parent in parents:
        for source in [_data_of(parent)] if spec.inherits("datasets") else spec.datasets:
            data = load_dataset(source)
            if spec.inherits("datasets") and parent.config["data_fingerprint"] not in ("", *data.manifest.identities):
                raise UserError(f"{source} holds other data than parent {parent.name} was trained on: name them again")
            _check_spaces(parent, data)
            for config in members_of(_spec_of(spec, parent, source), once)[0].values():
                child = config | about_parent(parent, config)
                if (key := (id(parent.kind), str(data.fingerprint), structure(config))) not in checked:
                    _check_networks(parent, data, config)
                    checked.add(key)
                same = {name: value for name, value in child.items() if name != PARENT}
                configs.setdefault(member_id(same), child)  # parents that differ in nothing that is trained are one
    if not configs:
        raise UserError("the sweep has no members: exclude leaves out all of them")
    return {member_id(child): child for child in configs.values()}


def about_parent(parent: Parent, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a child's configuration tells of its parent."""
    there, told = parent.config, {PARENT: parent.name, f"{OF_PARENT}updates": parent.updates}
    for name, value in there.items():
        if name.startswith(OF_PARENT) or (name not in {*OWN, PARENT, STATISTICS} and value != config.get(name)):
            told[f"{OF_PARENT}{name}"] = value
    if there["data_fingerprint"] != config["data_fingerprint"]:
        told |= {f"{OF_PARENT}{name}": there[name] for name in ("dataset", "data_fingerprint")}
    used_to = there.get(STATISTICS) or there["data_fingerprint"] or parent.name
    ranged = config.get("critic_head", "scalar") != "scalar" and config["v_min"] == config["v_max"]
    uses = config["normalize_observations"] or config.get("reward_scaling", "none") != "none" or ranged
    return told | ({STATISTICS: used_to} if uses and used_to != config["data_fingerprint"] else {})


def _data_of(parent: Parent) -> str:
    """Return the data set of a parent.

    Raises:
        UserError: it is not known, or changes while a member trains.
    """
    source = str(parent.config["dataset"])
    if not source:
        raise UserError(f"parent {parent.name} does not say what it was trained on: name a data set")
    if is_mixture(source) and MixtureName.parse(source).since:
        raise UserError(f"the data of parent {parent.name} change at an update, {source}: name what to go on with")
    return source


def _spec_of(spec: SweepSpec, parent: Parent, source: str) -> SweepSpec:
    """Return the sweep of one parent's children on one data set, as if it had no parents."""
    form = find(parent.config["algorithm"], parent.kind["spaces"]["action_kind"])
    given = {*spec.options, *(name for axis, values in spec.axes.items() for name in names_of(axis, values))}
    own = {name: parent.config[name] for name in options_of(form) if name in parent.config and name not in given}
    coefficient = own.pop("dr3_coeff", 0.0)
    own |= dict.fromkeys(_over(parent, own), 0)
    more: dict[str, Any] = {"coefficients": (coefficient,)} if spec.inherits("coefficients") else {}
    more |= {"seeds": (parent.config["seed"],)} if spec.inherits("seeds") else {}
    fields = {"parents": (), "algorithms": (form.name,), "datasets": (source,), "options": own | spec.options}
    return spec.model_copy(update=fields | more)


def _over(parent: Parent, options: Mapping[str, Any]) -> list[str]:
    """Return the options that count first steps, which the parent has made.

    Raises:
        UserError: it has made some of them.
    """
    counts = {name: value for name, value in options.items() if name.endswith("_steps") and value}
    if sum(counts.values()) > parent.updates:
        raise UserError(
            f"parent {parent.name} is in its first steps still ({', '.join(f'{n} {v:g}' for n, v in counts.items())}), "
            "in whose middle nothing begins: train it longer, or say how many there are to be"
        )
    return list(counts)


def _check_spaces(parent: Parent, data: Dataset) -> None:
    """Check that data have the spaces that a parent was trained on."""
    trained, given = Recorded.from_dict(parent.kind["recorded"]), Recorded.of(data)
    try:
        check_same(trained, given, parent.name)
    except UserError:
        theirs, ours = (" and ".join(map(shown, space.to_gymnasium())) for space in (trained, given))
        raise UserError(
            f"parent {parent.name} was trained on {theirs}, and {given.name} has {ours}: go on with data of such spaces"
        ) from None
    if (here := json.loads(json.dumps(data.spaces._asdict()))) != parent.kind["spaces"]:
        raise UserError(f"parent {parent.name} has the tasks of other mixtures: {parent.kind['spaces']}, not {here}")


def _check_networks(parent: Parent, data: Dataset, config: Config) -> None:
    """Check that the networks of a configuration have the form of the parent's.

    Raises:
        UserError: they have another one.
    """
    if bool(config["normalize_observations"]) != bool(parent.config["normalize_observations"]):
        raise UserError(
            f"parent {parent.name} was trained with normalize_observations "
            f"{str(parent.config['normalize_observations']).lower()}, and its networks know nothing else: leave it out"
        )
    form = find(config["algorithm"], data.spaces.action_kind)
    names = {*options_of(form), "seed"}
    plain = {name: value for name, value in config.items() if name in names} | {"normalize_observations": False}
    networks = build_networks(form, data.spaces, [Member.from_dict(form, plain)])
    here = {name: list(values.shape[1:]) for name, values in networks.state_dict().items() if is_of_members(name)}
    there = {name.removeprefix(PREFIX): list(shape[1:]) for name, shape in parent.kind["tensors"].items()}
    parts = {name.partition(".")[0] for name in there}  # a regulariser's network that only we have begins anew
    ours = {name for name in here if name in there or name.partition(".")[0] in parts}
    theirs = {name for name in there if is_of_members(name) and not name.startswith(tuple(REGULARIZED))}
    if any(here[name] != there.get(name) for name in ours) or not theirs <= here.keys():
        shared = json.loads(structure(config)).keys() & parent.config.keys() - OWN
        apart = sorted(name for name in shared if canonical(config[name]) != canonical(parent.config[name]))
        differ = ", ".join(apart) or "which the code of another version made"
        raise UserError(f"the networks of parent {parent.name} have another form ({differ}): leave that as it was")
