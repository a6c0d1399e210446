"""Names of options in a specification: which there are, and which are used before they are set."""

from typing import TYPE_CHECKING, Any

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.errors import UserError
from dr3_ray.member import REGULARIZERS
from dr3_ray.sweep.mistakes import check_known
from dr3_ray.sweep.space import names_of, space_of

if TYPE_CHECKING:
    from dr3_ray.sweep.spec import SweepSpec

REGULAR = {name for options in REGULARIZERS for name, _ in options()}


def options_of(form: AlgorithmSpec) -> dict[str, Any]:
    """Every option that an algorithm has, with its default."""
    options = (form.options, *(REGULARIZERS if form.has_critic else ()))
    return {name: value for each in options for name, value in each().to_dict().items()}


def check_names(spec: "SweepSpec") -> None:
    """UserError: an option or a condition has a name that none of the algorithms knows."""
    forms = [form for algorithm in spec.algorithms for form in kinds_of(algorithm).values()]
    known = REGULAR.union(*map(options_of, forms))
    spaces = {name: space_of(axis) for name, axis in spec.axes.items()}
    set_by = {name: names_of(name, axis) for name, axis in spec.axes.items()}
    check_known("option", [*spec.options, *(name for names in set_by.values() for name in names)], known)
    seen = known | {"algorithm", "dataset"}
    for name, space in spaces.items():
        check_known(f"name in axes.{name}.when", space.when, seen)
    for condition in spec.exclude:
        check_known("name in exclude", condition, seen | {"seed"})
    later = [name for name, space in spaces.items() if space.when]
    while later:
        name = later.pop(0)
        for other in later:
            if both := set(spaces[name].when) & set(set_by[other]):
                raise UserError(f"axes.{name} depends on {min(both)!r}, which is set after it: move axes.{other} up")
