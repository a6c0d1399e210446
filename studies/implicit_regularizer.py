"""Does label noise move a TD learner as R_TD says, and what become of R_TD's two terms with and without DR3?

    dr3-ray reproduce implicit_regularizer --scale desk --out runs/implicit_regularizer

R_TD is the implicit regulariser that DR3 opposes (Kumar et al. 2022, section 3; `dr3_ray.diagnostics.implicit`). Here
it is put to the test where all of it can be computed: plain semi-gradient steps on every row at once, with fresh
noise in every label, on a gridworld. Everything below was fixed before the first run of its scale; the sizes of step,
noise and runs were chosen on seeds 100 and 101, on which the prediction had been seen to fit,
and seeds 0 and 1 had made a smoke run of 90 steps.

World: 4 × 4 fields, an action succeeds always, the last field ends with 1 and field 5 with −1, the discount is 0.9.
Data: right and down in every field, once each. a' is *in the data* (the row's own action again) or *outside* (its
opposite, which is in no row). Critic: one-hot field and action, 16 softplus units (φ), a linear layer; 353
parameters.

Drift. Weights start at a fixed point of TD: first weights, brought there by Newton steps. `REPLICATES` copies of each
seed then take 4,000 noisy steps and are brought to a fixed point again. What they moved in the mean is
compared with the prediction: expanding the step around the fixed point to second order, with Σ* the covariance of
`fixed_point`,

    drift a step = −η P mean_i H_i Σ* (∇Q_i − γ∇Q'_i),   H_i the Hessian of Q_i,

where P projects onto the directions that leave all TD errors at 0. This is the gradient of *half* of R_TD's first
term minus its second one, with the stop-gradient. R_TD as we recall it from the paper has the whole first term, whose
gradient is twice as long: both are compared. *Slope* is the regression of what was moved on what was predicted: 1 is
as predicted. A seed whose TD has no Σ* at this step size has no prediction, and is counted.

Training. From the same first weights 21,000 steps are taken, with and without noise, with and without DR3. Both
terms are those of the last layer with Σ* = I. A run's *growth* is its second term at the end over that after a third.

Seeds count from 0. Claims are judged by `CLAIMS`: means over seeds, or differences at equal seeds, with Student's t
interval of 95%. A claim holds where the interval lies on its side of the bound, fails where it lies on the other, and
is undecided else. Nothing is left out, and no seed is added. The form with the whole first term is recalled; it was
not compared with the paper's display.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
from matplotlib.figure import Figure
from packs import main, markdown
from published import Published, ScaleOption, about_code, ending, interval, publish, tallied, verdict
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import one_hot, softplus

from dr3_ray.cli.paths import PATH
from dr3_ray.diagnostics.implicit import fixed_point, label_noise, last_layer_terms, semi_gradient_jacobian
from dr3_ray.errors import UserError, check_known
from dr3_ray.stats import Estimate, bootstrap_band, mean, paired_difference

SIDE, ACTIONS, GAMMA = 4, 4, 0.9
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
TAKEN = (1, 2)  # right and down
ENDS = {SIDE * SIDE - 1: 1.0, 5: -1.0}
IN, OUTSIDE = "in the data", "outside"
WIDTH = 16
STEP_SIZE, NOISE, COEFFICIENT = 0.02, 0.5, 0.01
REPLICATES = 32
SHAPES = ((SIDE * SIDE + ACTIONS, WIDTH), (1, WIDTH), (WIDTH, 1), (1, 1))
ARMS = (
    ("no noise", 0.0, 0.0),
    ("noise", NOISE, 0.0),
    ("no noise, DR3", 0.0, COEFFICIENT),
    ("noise, DR3", NOISE, COEFFICIENT),
)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    steps: int
    drift_steps: int
    seeds: int
    measured: int = 30
    """Measurements over training, evenly spaced."""


SCALES = {"smoke": Size(90, 20, 2), "desk": Size(21_000, 4_000, 10), "full": Size(300_000, 40_000, 20)}


class Rows(NamedTuple):
    """The data as the critic takes them, with a' in or outside of them."""

    here: Tensor
    """(s, a) one-hot, [row, 20]."""
    rewards: Tensor
    ahead: Tensor
    """(s', a') one-hot, [row, 20]."""
    goes_on: Tensor
    """1 where s' is no end, [row]."""


def rows(next_actions: str) -> Rows:
    """Return every row of the gridworld."""
    found = []
    for state in (each for each in range(SIDE * SIDE) if each not in ENDS):
        for action in TAKEN:
            row, column = (place + move for place, move in zip(divmod(state, SIDE), MOVES[action], strict=True))
            after = min(row, SIDE - 1) * SIDE + min(column, SIDE - 1)
            then = action if next_actions == IN else (action + 2) % ACTIONS
            found.append((state, action, ENDS.get(after, 0.0), after, then, after not in ENDS))
    state, action, reward, after, then, goes_on = map(torch.tensor, zip(*found, strict=True))

    def pair(field: Tensor, taken: Tensor) -> Tensor:
        return torch.cat([one_hot(field, SIDE * SIDE), one_hot(taken, ACTIONS)], dim=-1).double()

    return Rows(pair(state, action), reward.double(), pair(after, then), goes_on.double())


def first_weights(seed: int) -> Tensor:
    """Return weights [353] of a seed."""
    source = torch.Generator().manual_seed(seed)
    (fan, width), *_ = SHAPES
    first = torch.randn(fan * width, generator=source, dtype=torch.float64) / 2**0.5  # two of the inputs are 1
    last = torch.randn(width, generator=source, dtype=torch.float64) / width**0.5
    return torch.cat([first, torch.zeros(width, dtype=torch.float64), last, torch.zeros(1, dtype=torch.float64)])


def critic(weights: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q [..., row] and φ [..., row, 16] of weights [..., 353] at pairs [..., row, 20]."""
    parts = weights.split([high * wide for high, wide in SHAPES], dim=-1)
    hidden, bias, head, shift = (part.unflatten(-1, shape) for part, shape in zip(parts, SHAPES, strict=True))
    phi = softplus(pairs @ hidden + bias)
    return (phi @ head + shift).squeeze(-1), phi


def errors(weights: Tensor, data: Rows) -> Tensor:
    """Return Q(s, a) − r − γ Q(s', a') of every row."""
    return critic(weights, data.here)[0] - data.rewards - GAMMA * data.goes_on * critic(weights, data.ahead)[0]


def trained(weights: Tensor, data: Rows, noise: Tensor, coefficient: Tensor, source: torch.Generator) -> Tensor:
    """Return weights [member, 353] after a semi-gradient step on half the mean squared error plus DR3's term."""
    weights = weights.requires_grad_()
    (q, phi), (next_q, next_phi) = critic(weights, data.here), critic(weights, data.ahead)
    labels = data.rewards + GAMMA * data.goes_on * next_q.detach()
    labels = labels + noise * torch.randn(labels.shape, generator=source, dtype=labels.dtype)
    dots = ((phi * next_phi).sum(-1) * data.goes_on).sum(-1) / data.goes_on.sum(-1)
    loss = 0.5 * (q - labels).square().mean(-1) + coefficient * dots
    (gradient,) = torch.autograd.grad(loss.sum(), weights)
    return weights.detach() - STEP_SIZE * gradient


def of_one(weights: Tensor, pair: Tensor) -> Tensor:
    """Return Q of one pair [20]."""
    return critic(weights, pair.unsqueeze(0))[0].squeeze(0)


gradients = vmap(grad(of_one), (None, 0))  # of weights [353] at pairs [row, 20]: [row, 353]


class Surroundings(NamedTuple):
    """Gradients at a fixed point of TD."""

    here: Tensor
    """∇Q_i, [row, 353]."""
    ahead: Tensor
    """γ_i ∇Q'_i, [row, 353]."""

    def off(self, direction: Tensor, change: Tensor) -> Tensor:
        """Return a direction less what it takes, along the steps of TD, for the errors not to change."""
        across = (self.here - self.ahead) @ self.here.mT
        return direction - torch.linalg.solve(across, change) @ self.here

    def projected(self, direction: Tensor) -> Tensor:
        """Return P direction: what TD's steps do not undo."""
        return self.off(direction, (self.here - self.ahead) @ direction)


def surroundings(weights: Tensor, data: Rows) -> Surroundings:
    """Return the gradients of every row."""
    discounts = (GAMMA * data.goes_on).unsqueeze(-1)
    return Surroundings(gradients(weights, data.here), discounts * gradients(weights, data.ahead))


def settled(weights: Tensor, data: Rows) -> Tensor:
    """Return the fixed point of TD that Newton steps along its own directions reach."""
    for _ in range(50):
        error = errors(weights, data)
        if error.abs().max() < 1e-10:
            break
        weights = surroundings(weights, data).off(weights, error)
    return weights


def drift(weights: Tensor, data: Rows, whole: bool) -> Tensor:
    """Return the movement that is predicted of a step [353], by half of the first term, or by the `whole` of it.

    Raises:
        UserError: Σ* does not exist at this step size.
    """
    near, n = surroundings(weights, data), len(data.rewards)
    shares, discounts = torch.full((n,), 1.0 / n).double(), GAMMA * data.goes_on
    jacobian = semi_gradient_jacobian(near.here, gradients(weights, data.ahead), discounts, shares)
    sigma = fixed_point(jacobian, label_noise(near.here, shares), STEP_SIZE) * NOISE**2 / n
    fixed = ((2.0 if whole else 1.0) * near.here - near.ahead) @ sigma
    along = grad(lambda moved: (gradients(moved, data.here) * fixed).sum(-1).mean())
    return near.projected(-STEP_SIZE * along(weights))


def drifts(seeds: int, steps: int) -> Iterator[dict[str, Any]]:
    """Yield what each seed moved, beside what was predicted."""
    for place, way in enumerate((IN, OUTSIDE)):
        data = rows(way)
        for seed in range(seeds):
            begun = time.monotonic()
            start = settled(first_weights(seed), data)
            entry: dict[str, Any] = {"data": way, "seed": seed, "member": f"drift {way} {seed}", "arm": "drift"}
            entry |= {"dr3_coeff": 0.0, "step": steps, "td_error": float(errors(start, data).square().mean())}
            try:
                half, whole = (drift(start, data, each) for each in (False, True))
            except UserError:
                yield entry | {"status": "no fixed point", "time_s": time.monotonic() - begun}
                continue
            source, still = torch.Generator().manual_seed(1000 * seed + place), torch.zeros(1).double()
            weights = start.expand(REPLICATES, -1).clone()
            for _ in range(steps):
                weights = trained(weights, data, still + NOISE, still.squeeze(0), source)
            near = surroundings(start, data)
            moved = torch.stack([near.projected(settled(each, data) - start) for each in weights.detach()])
            mean_moved = moved.mean(0)
            entry |= {"moved": float(mean_moved.norm()), "uncertain": float(moved.std(0).norm()) / REPLICATES**0.5}
            for name, predicted in (("half", half * steps), ("whole", whole * steps)):
                along = mean_moved @ predicted
                entry[f"{name}_cosine"] = float(along / (mean_moved.norm() * predicted.norm()))
                entry[f"{name}_slope"] = float(along / (predicted @ predicted))
            yield entry | {"status": "finished", "time_s": time.monotonic() - begun}


def training(seeds: int, steps: int, measured: int) -> Iterator[dict[str, Any]]:
    """Yield both terms along training, of all arms and seeds at once."""
    begun = time.monotonic()
    who = [(way, *arm, seed) for way in (IN, OUTSIDE) for arm in ARMS for seed in range(seeds)]
    data = Rows(*(torch.stack(each) for each in zip(*(rows(way) for way, *_ in who), strict=True)))
    weights = torch.stack([first_weights(seed) for *_, seed in who])
    noise = torch.tensor([[each[2]] for each in who]).double()
    coefficients = torch.tensor([each[3] for each in who]).double()
    source, ones = torch.Generator().manual_seed(0), torch.ones_like(data.rewards)
    for step in range(steps + 1):
        if step % (steps // measured) == 0:
            with torch.no_grad():
                (q, phi), next_phi = critic(weights, data.here), critic(weights, data.ahead)[1]
                terms = last_layer_terms(phi, next_phi, data.goes_on, ones, GAMMA * ones, ones)
                terms |= {"q_mean": q.mean(-1), "td_error": errors(weights, data).square().mean(-1)}
            taken = time.monotonic() - begun
            for place, (way, name, _, coefficient, seed) in enumerate(who):
                about = {"data": way, "seed": seed, "member": f"{way} {name} {seed}", "arm": name}
                numbers = {name: float(each[place]) for name, each in terms.items()}
                about |= {"dr3_coeff": coefficient, "step": step, "status": "finished", "time_s": taken}
                yield about | numbers
        weights = trained(weights, data, noise, coefficients, source).detach()


class Claim(NamedTuple):
    """What is expected of a number a seed, or of its difference between two arms."""

    said: str
    column: str
    arms: tuple[str, ...]
    """One, or two whose difference it is."""
    bound: float
    above: bool
    data: tuple[str, ...] = (IN, OUTSIDE)


CLAIMS = (
    Claim("noise moves weights in the predicted direction (cosine above 0.9)", "half_cosine", ("drift",), 0.9, True),
    Claim("at least 0.8 times as far as predicted", "half_slope", ("drift",), 0.8, True),
    Claim("at most 1.25 times as far as predicted", "half_slope", ("drift",), 1.25, False),
    Claim("at least 0.8 times as far as the whole first term predicts", "whole_slope", ("drift",), 0.8, True),
    Claim("with noise the second term grows where a' is outside", "growth", ("noise",), 0.0, True, (OUTSIDE,)),
    Claim("with noise the second term does not grow where a' is in the data", "growth", ("noise",), 0.0, False, (IN,)),
    Claim("noise lowers R_TD by the end", "r_td", ("noise", "no noise"), 0.0, False),
    Claim("noise lowers the second term by the end", "second_term", ("noise", "no noise"), 0.0, False),
    Claim("DR3 lowers the second term by the end", "second_term", ("noise, DR3", "noise"), 0.0, False),
    Claim("DR3 lowers the first term by the end", "first_term", ("noise, DR3", "noise"), 0.0, False),
)


def outcomes(histories: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run: what was last measured, and the logarithm of the second term's growth."""
    found = []
    for _, run in histories.sort_values("step").groupby("member", sort=False):
        last, third = run.iloc[-1], run[run["step"] >= run["step"].max() / 3].iloc[0]
        growth = np.log(last["second_term"] / third["second_term"]) if len(run) > 1 else np.nan
        found.append(last.to_dict() | {"growth": growth, "early": third["second_term"]})
    return pd.DataFrame(found)


def judged(runs: pd.DataFrame) -> Iterator[tuple[Claim, str, Estimate]]:
    """Yield the number that each claim speaks of."""
    for claim in CLAIMS:
        for way in claim.data:
            here = runs[(runs["data"] == way) & (runs["status"] == "finished")]
            sides = [here[here["arm"] == name].set_index("seed")[claim.column].to_dict() for name in claim.arms]
            yield claim, way, paired_difference(sides[0], sides[1] if sides[1:] else dict.fromkeys(sides[0], 0.0))


def page(found: Published) -> str:
    """Write the page from what was measured, every number of it."""
    runs = outcomes(found.histories)
    results = [(*each, verdict(each[2], each[0].bound, each[0].above)) for each in judged(runs)]
    moved = runs[runs["arm"] == "drift"]
    arms = [own for way in (IN, OUTSIDE) for name, *_ in ARMS if len(own := _of(runs, way, name))]
    return f"""# {(__doc__ or "").partition("?")[0]}?

{tallied(CLAIMS, [(claim, said) for claim, _, _, said in results])}

{answered(runs)}

![Both terms over training](implicit_regularizer.svg)

## What was claimed, and what came of it

{
        markdown(
            ["claim", "a'", "number, or difference", "bound", "it"],
            [
                [claim.said, way, interval(estimate, 3), f"{claim.bound:g}", said]
                for claim, way, estimate, said in results
            ],
        )
    }

Growth is the natural logarithm of its ratio.

## What label noise moved

Means over seeds. Cosines are those of what was moved with what was predicted.

{markdown(MOVED, [_moved(own) for _, own in moved.groupby("data")])}

## The terms at the end of training

Means over seeds, of the last layer with Σ* = I.

{markdown(TERMS, [_terms(own) for own in arms])}

{ending("implicit_regularizer", __doc__, found)}
"""


def _of(runs: pd.DataFrame, way: str, name: str) -> pd.DataFrame:
    """Return the runs of an arm."""
    return runs[(runs["data"] == way) & (runs["arm"] == name)]


def answered(runs: pd.DataFrame) -> str:
    """Return the answer in numbers."""
    said = []
    for way in (IN, OUTSIDE):
        half, whole = _of(runs, way, "drift")[["half_slope", "whole_slope"]].mean()
        (early, late), (first, last) = (
            _of(runs, way, name)[["early", "second_term"]].mean() for name in ("noise", "noise, DR3")
        )
        said.append(
            f"Where a' is {way}, weights moved {half:.2f} times as far as half of the first term less the second\n"
            f"predicts, and {whole:.2f} times as far as the whole first term less the second. From a third of\n"
            f"training on, noise brought the second term from {early:.2f} to {late:.2f}, and with DR3 from\n"
            f"{first:.2f} to {last:.2f}."
        )
    return "\n\n".join(said)


MOVED = ["a'", "seeds", "no Σ*", "moved", "uncertain by", "cosine, half", "slope, half",
         "cosine, whole", "slope, whole"]  # fmt: skip
TERMS = ["a'", "arm", "seeds", "first term", "second term, at a third", "second term", "R_TD", "mean squared TD error"]


def _moved(runs: pd.DataFrame) -> list[str]:
    """Return a line of `MOVED`."""
    done = runs[runs["status"] == "finished"]
    names = ("moved", "uncertain", "half_cosine", "half_slope", "whole_cosine", "whole_slope")
    numbers = [f"{done[name].mean():.3f}" for name in names]
    return [runs.iloc[0]["data"], str(len(runs)), str(len(runs) - len(done)), *numbers]


def _terms(runs: pd.DataFrame) -> list[str]:
    """Return a line of `TERMS`."""
    numbers = [f"{runs[name].mean():.3g}" for name in ("first_term", "early", "second_term", "r_td", "td_error")]
    return [runs.iloc[0]["data"], runs.iloc[0]["arm"], str(len(runs)), *numbers]


def draw(found: Published) -> Figure:
    """Draw both terms over training, a panel for each a'."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True, squeeze=False)[0]
    for axes, way in zip(panels, (IN, OUTSIDE), strict=True):
        for place, (name, *_) in enumerate(ARMS):
            runs = found.histories[(found.histories["data"] == way) & (found.histories["arm"] == name)]
            for column, style in (("first_term", ":"), ("second_term", "-")):
                curves = runs.pivot(index="member", columns="step", values=column)
                band = bootstrap_band(curves, estimator=mean)
                label = f"{name}, {column.replace('_', ' ')}"
                axes.plot(curves.columns, band.value, style, color=f"C{place}", label=label)
                axes.fill_between(curves.columns, band.low, band.high, color=f"C{place}", alpha=0.12, linewidth=0)
        axes.set_yscale("log")
        axes.set_title(f"a\N{PRIME} {way}", fontsize=9, loc="left")
        axes.set_xlabel("gradient steps")
    panels[0].set_ylabel("terms of R_TD, last layer")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def study(
    scale: ScaleOption = "desk",
    out: Annotated[Path, typer.Option(help="Directory of the results.", **PATH)] = Path("runs/implicit_regularizer"),
) -> None:
    """Train on the gridworld, compare with the prediction, and write the page."""
    check_known("scale", [scale], SCALES)
    size = SCALES[scale]
    torch.set_num_threads(1)
    parts: tuple[Callable[[], Iterator[dict[str, Any]]], ...] = (
        lambda: training(size.seeds, size.steps, size.measured),
        lambda: drifts(size.seeds, size.drift_steps),
    )
    histories = pd.DataFrame([row for part in parts for row in part()])
    text = publish("implicit_regularizer", Published(histories, about_code(scale)), page, draw, out / "results")
    print(f"{text.partition('![')[0].strip()}\n\nthe page: {out}/results/implicit_regularizer.md")


if __name__ == "__main__":
    main(study)
