"""The recipe that diagnoses a module of stock RLlib: the numbers are those of the module."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dr3_ray.rllib import penultimate

PAGE = Path(__file__).parents[2] / "docs" / "diagnose.md"


def test_the_recipe_for_stock_rllib():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    first, recipe = (next(block for block in blocks if word in block) for word in ("COLUMNS =", "ray.rllib"))
    names: dict[str, Any] = {}
    exec(first + recipe, names)
    module, rows, probe = names["module"], names["rows"], names["found"].probes["batch"]
    observations = rows["observations"].float()
    with torch.no_grad():
        q = module.compute_q_values({"obs": observations})["qf_preds"]
        phi = penultimate(module.vf, module.encoder({"obs": observations})["encoder_out"])
    chosen = q.gather(-1, rows["actions"].long().unsqueeze(-1))
    assert probe.numbers["q_data"] == pytest.approx(chosen.mean().item(), rel=1e-4)
    assert probe.pairs["argmax"]["phi_norm"] == pytest.approx(phi.norm(dim=-1).mean().item(), rel=0.05)  # of some rows
    assert sum(value**2 for value in probe.spectrum) == pytest.approx(phi.square().sum(-1).mean().item(), rel=1e-4)
