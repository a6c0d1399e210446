"""Members that are trained longer: their pack goes on from the checkpoint of one that has ended."""

from collections.abc import Mapping

from dr3_ray.runs.identity import canonical
from dr3_ray.runs.index import FINAL, Record
from dr3_ray.sweep.packs.packing import Pack, pack_name
from dr3_ray.sweep.spec.spec import Config

APART = ("steps", "evaluations", "dataset")  # what may differ; data count by their fingerprint


def longer_packs(members: Mapping[str, Config], records: Mapping[str, Record]) -> dict[str, Pack]:
    """Return packs that go on from packs that have ended, by name: the same members in the same order, with more steps.

    What comes of them is, to the bit, what training them in one go would have given. So the evaluations have to be as
    many updates apart as they were, no member may be cut by halving, and none compiled, which is equal up to rounding.
    """
    ended = [configs for name, configs in _ended(records).items() if name == pack_name(configs)]
    if not ended:
        return {}
    wanted: dict[tuple[str, int], dict[int, str]] = {}  # the members of a kind, by their steps
    for member, config in members.items():
        wanted.setdefault(_kind(config), {})[config["steps"]] = member
    found: dict[str, Pack] = {}
    for configs in sorted(ended, key=_steps):  # the longest one counts
        longer = [wanted.get(_kind(old), {}) if _may_go_on(old) else {} for old in configs.values()]
        for steps in set(longer[0]).intersection(*longer):
            if steps > _steps(configs):
                pack = {each[steps]: members[each[steps]] for each in longer}
                found[pack_name(pack)] = Pack(pack_name(pack), pack, pack_name(configs))
    return found


def shorter_before(missing: Mapping[str, Config], records: Mapping[str, Record]) -> str:
    """Say what keeps missing members from going on where shorter ones have ended; empty where nothing is to be said."""
    ended = {
        canonical(_apart(record["config"])): record["config"]
        for record in records.values()
        if record["status"] == "finished" and _may_go_on(record["config"])
    }
    if not ended:
        return ""
    for config in missing.values():
        before = ended.get(canonical(_apart(config)))
        if before and before["steps"] < config["steps"] and _every(before) != _every(config):
            with_them = config["steps"] // _every(before)
            fits = config["steps"] % _every(before) == 0
            return (
                f"members that were trained for {before['steps']:,} updates are not gone on with, because evaluations "
                f"came every {_every(before):,} updates and are to come every {_every(config):,} now"
                + (f": {with_them} evaluations would let them go on" if fits else "")
            )
    return ""


def _ended(records: Mapping[str, Record]) -> dict[str, dict[str, Config]]:
    """Return the members of each pack whose members have all ended, none of them cut."""
    packs: dict[str, dict[str, Config]] = {}
    going = {record["pack"] for record in records.values() if record["status"] not in FINAL}
    cut = {record["pack"] for record in records.values() if record["status"] == "cut"}
    for member, record in records.items():
        if record["pack"] and record["pack"] not in going | cut:
            packs.setdefault(record["pack"], {})[member] = record["config"]
    return packs


def _may_go_on(config: Config) -> bool:
    return not (config.get("halving") or config.get("compile"))


def _kind(config: Config) -> tuple[str, int]:
    """Return what a member and a longer one have in common."""
    return canonical(_apart(config)), _every(config)


def _apart(config: Config) -> Config:
    return {name: value for name, value in config.items() if name not in APART}


def _every(config: Config) -> int:
    """Return the updates between two evaluations."""
    return int(config["steps"] // config["evaluations"])


def _steps(configs: Mapping[str, Config]) -> int:
    return max(int(config["steps"]) for config in configs.values())
