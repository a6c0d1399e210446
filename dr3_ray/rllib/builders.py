"""RLlib's builder methods, which read what they are given before it is set, and so have to check it before that."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided

from dr3_ray.rllib.settings import attribute_of

C = TypeVar("C", bound=AlgorithmConfig)


def checks_first(config_class: type[C]) -> type[C]:
    """Have the builder methods of a class pass each setting to its `check_setting` first."""
    for name, method in inspect.getmembers(config_class, inspect.isfunction):
        parameters = inspect.signature(method).parameters
        if name[0] != "_" and any(map(_is_setting, parameters.values())):
            setattr(config_class, name, _checking_first(method, parameters))
    return config_class


def _is_setting(parameter: inspect.Parameter) -> bool:
    return parameter.default is NotProvided  # RLlib's mark of one


def _checking_first(method: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> Callable[..., Any]:
    known = {name for name, parameter in parameters.items() if _is_setting(parameter)}

    @functools.wraps(method)
    def build(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(parameters, (self, *args), strict=False)) | kwargs
        for name in known & given.keys() if self.is_guarded else ():
            if given[name] is not NotProvided:
                self.check_setting(attribute_of(name), given[name])
        return method(self, *args, **kwargs)

    return build
