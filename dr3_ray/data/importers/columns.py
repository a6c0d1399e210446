"""Which columns of a table are what: as the user says, or a guess by the names that are common."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from dr3_ray.data.importers.files import natural
from dr3_ray.errors import UserError

# what --columns calls a column, what we call it, and the names that others have for it; the first that is there counts
NAMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "observation": (
        "observations",
        ("observations", "observation", "obs", "observation.state", "state", "states", "s", "obs_*", "observation_*",
         "observation.*", "state_*", "obs[0-9]*", "s[0-9]*"),
    ),
    "action": (
        "actions",
        ("actions", "action", "act", "a", "action_*", "act_*", "action.*", "a_*", "action[0-9]*", "a[0-9]*"),
    ),
    "reward": ("rewards", ("rewards", "reward", "rew", "r", "next.reward")),
    "terminated": (
        "terminateds",
        ("terminateds", "terminated", "terminations", "termination", "terminals", "terminal", "is_terminal", "dones",
         "done", "next.done"),
    ),
    "truncated": (
        "truncateds",
        ("truncateds", "truncated", "truncations", "truncation", "timeouts", "timeout", "time_limit"),
    ),
    "next_observation": (
        "next_observations",
        ("next_observations", "next_observation", "next_obs", "new_obs", "next_state", "next_states", "next_obs_*",
         "next_observation_*", "next_state_*", "next_obs[0-9]*"),
    ),
    "episode": (
        "episode_ids",
        ("episode_ids", "episode_id", "episode", "episodes", "eps_id", "ep_id", "episode_index", "traj_id",
         "trajectory_id", "trajectory", "ep"),
    ),
    "t": ("timesteps", ("timesteps", "timestep", "t", "step", "steps", "time_step", "frame_index", "time")),
}  # fmt: skip
NEEDED = ("observation", "action", "reward")
MOST_LISTED = 20  # names of columns in a line
DONE = ("done", "dones", "next.done")  # may mean any end


def mapped(names: Iterable[str], said: str | None = None) -> dict[str, list[str]]:
    """Return the source's columns for each of ours, several for one that is put together of numbers.

    Args:
        names: what the source has.
        said: `observation=obs_*,action=a_*,reward=r`: names or patterns, joined by `+`. What it leaves out is guessed;
            `truncated=` means none, and `reward=0` that all are 0: they get no column.

    Raises:
        UserError: a column that is needed, or was named, is not there, or is there twice.
    """
    names = list(names)
    asked = _parsed(said) if said else {}
    zero = asked.get("reward", ("", []))[1] == ["0"] and "0" not in names
    if zero:
        del asked["reward"]
    mapping = {ours: _matching(patterns, names, key) for key, (ours, patterns) in asked.items()}
    for key, (ours, patterns) in NAMES.items():
        if not any(name == ours or name.startswith(f"{ours}/") for name in mapping) and not (zero and key == "reward"):
            used = {name for columns in mapping.values() for name in columns}
            free = [name for name in names if name not in used]
            if parts := _parts(ours, patterns, free):
                mapping |= parts
                continue
            mapping[ours] = next((columns for pattern in patterns if (columns := _natural(pattern, free, _folded))), [])
            if not mapping[ours] and key in NEEDED:
                without = "; without rewards, for behaviour cloning, write reward=0" if key == "reward" else ""
                raise UserError(
                    f"no column looks like {key}: there are {_listed(names)}; say which it is, as in "
                    f"--columns {key}=NAME{without}"
                )
    taken = {ours: columns for ours, columns in mapping.items() if columns} | ({"rewards": []} if zero else {})
    for key in NEEDED:
        ours = NAMES[key][0]
        if not any(name == ours or name.startswith(f"{ours}/") for name in taken):
            raise UserError(f"--columns leaves {key} without a column: write --columns {key}=NAME")
    if twice := [name for columns in taken.values() for name in columns if names.count(name) > 1]:
        raise UserError(f"there are several columns {twice[0]!r}: rename or drop the others")
    return taken


def described(columns: dict[str, list[str]], names: Iterable[str] = ()) -> dict[str, str]:
    """Describe each of our columns in words, and which of the source's `names` are left over."""
    said = {ours: ", ".join(theirs) or "none: 0 at every step" for ours, theirs in columns.items()}
    used = {name for theirs in columns.values() for name in theirs}
    unused = [name for name in names if name not in used]
    return said | ({"(not taken)": ", ".join(unused)} if unused else {})


def _parsed(said: str) -> dict[str, tuple[str, list[str]]]:
    asked: dict[str, tuple[str, list[str]]] = {}
    for word in said.split(","):
        key, mark, patterns = (part.strip() for part in word.partition("="))
        kind, _, part = key.partition("/")
        if not mark or kind not in NAMES or (part and not kind.endswith("observation")):
            raise UserError(
                f"--columns has {word!r}: write NAME=COLUMN, where NAME is one of {', '.join(NAMES)}; a part of an "
                "observation is observation/NAME"
            )
        ours = NAMES[kind][0]
        if key in asked or (kind != key and kind in asked) or any(name.startswith(f"{key}/") for name in asked):
            raise UserError(f"--columns names {kind} twice: join columns of one with +, or name its parts alone")
        asked[key] = (
            f"{ours}/{part}" if part else ours,
            [pattern.strip() for pattern in patterns.split("+") if pattern.strip()],
        )
    return asked


def _matching(patterns: list[str], names: list[str], key: str) -> list[str]:
    matching: list[str] = []
    for pattern in patterns:
        columns = _natural(pattern, names)
        if not columns:
            raise UserError(
                f"no column is called {pattern!r}, which --columns names for {key}: there are {_listed(names)}"
            )
        matching += columns
    return matching


def _parts(ours: str, patterns: tuple[str, ...], names: list[str]) -> dict[str, list[str]]:
    """Return columns that are parts of one of ours, as in structs and groups: `obs/position`, of the first name."""
    if not ours.endswith("observations"):
        return {}
    for whole in (ours, *patterns):
        if parts := [name for name in names if name.startswith(f"{whole}/")]:
            return {f"{ours}/{name.removeprefix(f'{whole}/')}": [name] for name in parts}
    return {}


def _folded(name: str) -> str:
    return name.strip().lower()


def _natural(pattern: str, names: list[str], read: Callable[[str], str] = str.strip) -> list[str]:
    """Return the names that match as they are `read`, obs_2 before obs_10."""
    exact = [name for name in names if name == pattern] or [name for name in names if read(name) == pattern]
    matching = [name for name in names if fnmatchcase(read(name), pattern)]
    return exact[:1] or sorted(matching, key=natural)


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:MOST_LISTED]) + (
        f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
    )
