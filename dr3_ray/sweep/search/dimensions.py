"""Axes as dimensions that Optuna draws from."""

from typing import Any, NamedTuple

from optuna.trial import Trial

from dr3_ray.errors import UserError
from dr3_ray.sweep.spec.space import Assignment, LogUniform, Range, Space, rounded


class Dimension(NamedTuple):
    """A dimension of a study for an axis: a float for a range, else categories, which are the rows of a zip."""

    name: str
    space: Space
    seed: int
    """Decides what a zip of ranges consists of."""

    def suggest(self, trial: Trial, point: Assignment) -> Assignment:
        """Return the options of a trial; those that a point names where the axis does not have them."""
        if given := self.outside(point):
            return given
        if isinstance(self.space, Range):
            low, high = self.space.bounds
            number = trial.suggest_float(self.name, low, high, log=isinstance(self.space, LogUniform))
            return {self.name: rounded(number, low, high)}
        rows = self._rows()
        label = trial.suggest_categorical(self.name, list(rows)) if len(rows) > 1 else next(iter(rows))
        return rows[label]

    def parameters(self, point: Assignment) -> dict[str, Any]:
        """Return the parameters that Optuna has to suggest for a point that names options of this axis."""
        if not (given := self._given(point)) or self.outside(point):
            return {}
        if isinstance(self.space, Range):
            return {self.name: float(given[self.name])}
        return {self.name: next(label for label, row in self._rows().items() if given.items() <= row.items())}

    def outside(self, point: Assignment) -> Assignment:
        """Return a point's options of this axis, if they are none of its values.

        Raises:
            UserError: not even all of these options.
        """
        given = self._given(point)
        if not given:
            return {}
        if isinstance(self.space, Range):
            low, high = self.space.bounds
            return {} if low <= given[self.name] <= high else given
        if any(given.items() <= row.items() for row in self._rows().values()):
            return {}
        if missing := sorted(set(self.space.names) - given.keys()):
            raise UserError(f"search.points: no row of axes.{self.name} is like that, so give {missing[0]!r}, too")
        return given

    def is_drawn(self, options: Assignment, point: Assignment) -> bool:
        """Return whether a trial with these options, which stands for a point, has had this dimension drawn."""
        chosen = any(name in options for name in self.space.names or (self.name,))
        return chosen and not self.outside(point) and (isinstance(self.space, Range) or len(self._rows()) > 1)

    def _given(self, point: Assignment) -> Assignment:
        return {name: point[name] for name in self.space.names or (self.name,) if name in point}

    def _rows(self) -> dict[Any, Assignment]:
        """Return options by the category that stands for them."""
        return {self._label(point): point for point in self.space.options(self.name, self.seed)}

    def _label(self, options: Assignment) -> Any:
        if self.space.names:
            return ", ".join(f"{name}={value}" for name, value in options.items())
        value = options[self.name]
        return value if isinstance(value, str | int | float | bool | None) else str(value)
