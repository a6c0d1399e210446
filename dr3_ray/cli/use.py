"""`dr3-ray evaluate` and `dr3-ray export`: what was trained, in use."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dr3_ray.cli.adapting import columns, document, mean_of, read_options, read_shifts, told
from dr3_ray.cli.document import AsJson, print_document
from dr3_ray.cli.numbers import count
from dr3_ray.cli.paths import FILE, PATH, READ, here
from dr3_ray.errors import UserError, check_known

if TYPE_CHECKING:
    from dr3_ray.policies.loading import Which
    from dr3_ray.policies.playing import Episodes
    from dr3_ray.policies.policy import Policy

SourceArgument = Annotated[
    str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run directory or URI, or a checkpoint's directory.", **READ)
]
MemberOption = Annotated[
    str, typer.Option(help="best, a hash or how it begins (@N: after N updates), or a place in a checkpoint.")
]
WhereOption = Annotated[
    list[str], typer.Option(metavar="OPTION=VALUE", help="Of the members, those with this value; several times.")
]
ObjectiveOption = Annotated[
    str | None, typer.Option(help="What best means, as in td_error.", show_default="what the run was judged by")
]
TrustOption = Annotated[bool, typer.Option("--trust", help="RUN is from somebody whose code may run here.")]


def evaluate(
    source: SourceArgument,
    env: Annotated[
        str | None,
        typer.Option(
            "--env", "--environment", help="An environment's name.", show_default="where the member was rolled out"
        ),
    ] = None,
    episodes: Annotated[int, typer.Option(help="How many.", **count(1))] = 100,
    seed: Annotated[
        int, typer.Option(help="Of the first episode; the next one has the next.", **count(0, 2**32 - 1))
    ] = 0,
    member: MemberOption = "best",
    where: WhereOption = [],  # noqa: B006
    objective: ObjectiveOption = None,
    video: Annotated[Path | None, typer.Option(help="A folder for videos of the first episodes.", **PATH)] = None,
    every_return: Annotated[
        Path | None, typer.Option(help="A Parquet file for every episode's return.", **FILE)
    ] = None,
    shift: Annotated[
        list[str],
        typer.Option(
            metavar="NAME:LEVEL", help="Change the images: brightness:0.3, noise:0.1, shift:2; several times."
        ),
    ] = [],  # noqa: B006
    adapt: Annotated[
        str | None, typer.Option(metavar="memo", help="Adapt to each observation, beside the plain policy.")
    ] = None,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="OPTION=VALUE", help="An option of --adapt; several times.")
    ] = [],  # noqa: B006
    trust: TrustOption = False,
    as_json: AsJson = False,
) -> None:
    """Play episodes with a trained policy and print the mean return with its interval; write every return on request.

    Example: dr3-ray evaluate runs/breakout --episodes 100 --every-return returns.parquet

    Example: dr3-ray evaluate runs/breakout --where dr3_coeff=0.03 --where seed=1 --video videos

    Example: dr3-ray evaluate runs/breakout --env CartPole-v1 --json

    Example: dr3-ray evaluate runs/breakout --shift shift:1 --adapt memo --set lr=0.001
    """
    from dr3_ray.policies.playing import play

    options, shifts = read_options(adapt, settings, video), read_shifts(shift)
    policy = _load(source, member, where, objective, trust)
    if options:
        from dr3_ray.policies.adapting import play_adapted
        from dr3_ray.policies.memo import Memo

        memo = Memo(policy, options)
        adapted = play_adapted(memo, env, episodes, seed, shifts)
        numbers, lines, returns = document(memo, adapted), told(memo, adapted), columns(adapted)
    else:
        played = play(policy, env, episodes, seed, video, shifts)
        numbers, lines, returns = _numbers(played), _told(played), played._asdict()
    if every_return:
        _write(every_return, returns)
    if as_json:
        files = {"every_return": every_return and str(every_return), "video": video and str(video)}
        place = {"environment": env or policy.config["environment"], "shifts": list(map(str, shifts))}
        print_document(_about(policy) | place | numbers | files)
        return
    for line in lines:
        print(line)
    if video:
        print(f"videos: {video}")


def export(
    source: SourceArgument,
    to: Annotated[str, typer.Option(help="onnx, torchscript or pt2.")],
    out: Annotated[Path, typer.Option(help="The file to write; a model card comes beside it.", **FILE)],
    member: MemberOption = "best",
    where: WhereOption = [],  # noqa: B006
    objective: ObjectiveOption = None,
    trust: TrustOption = False,
    as_json: AsJson = False,
) -> None:
    """Write a trained policy as a file that other programs run, once its own runtime gives the same actions.

    Example: dr3-ray export runs/breakout --to onnx --out policy.onnx

    Example: dr3-ray export runs/breakout --to torchscript --member best --out policy.pt --json
    """
    from dr3_ray.policies.export import WRITERS
    from dr3_ray.policies.export import export as write

    check_known("format", [to], WRITERS)
    policy = _load(source, member, where, objective, trust)
    card = write(policy, to, out)
    if as_json:
        print_document(_about(policy) | {"format": to, "file": str(out), "card": str(card)})
    else:
        print(f"written: {out}, and what it is: {card}")


def which_member(member: str, where: list[str]) -> "Which":
    """Return the member that the options mean, as `load_policy` takes it.

    Raises:
        UserError: they name members in two ways.
    """
    from dr3_ray.cli.spec_options import read_settings
    from dr3_ray.policies.loading import BEST

    if where and member != BEST:
        raise UserError(f"--member {member} and --where name members in two ways: leave out one of them")
    values: dict[str, Any] = read_settings(where)
    return values or (int(member) if member.isdecimal() and len(member) < 4 else member)


def _load(source: str, member: str, where: list[str], objective: str | None, trust: bool) -> "Policy":
    """Load the policy that is meant, and say which it is."""
    from dr3_ray.policies.loading import load_policy

    (place,) = here([source], checkpoints=True)
    policy = load_policy(place, which_member(member, where), objective, trust)
    about = {name: policy.config[name] for name in ("dr3_coeff", "seed") if name in policy.config}
    shown = ", ".join(f"{name} {value:g}" for name, value in about.items())
    print(f"{policy.spec.name} on {policy.recorded.name}, {shown}: {policy.chosen}", file=sys.stderr)
    return policy


def _about(policy: "Policy") -> dict[str, Any]:
    """Return what a policy is, for programs."""
    about = {"algorithm": policy.spec.name, "dataset": policy.recorded.name}
    return about | {"chosen": policy.chosen, "config": policy.config}


def _numbers(played: "Episodes") -> dict[str, Any]:
    """Return all returns and their mean, for programs; NaN is null there."""
    return {"mean_return": mean_of(played.returns), **played._asdict()}


def _told(played: "Episodes") -> list[str]:
    """Return the returns as people read them."""
    import numpy as np

    estimate = mean_of(played.returns)
    interval = (
        f" (95% interval {estimate.low:.4g} to {estimate.high:.4g})"
        if estimate.has_interval
        else " (one episode: no interval)"
    )
    fine = played.returns[np.isfinite(played.returns)]
    lines = [
        f"return {estimate.value:.4g}{interval} over {estimate.n} episodes of seeds {played.seeds[0]} to "
        f"{played.seeds[-1]}",
        *([f"median {np.median(fine):.4g}, from {fine.min():.4g} to {fine.max():.4g}"] if fine.size else []),
        f"length {played.lengths.mean():.4g} steps in the mean",
    ]
    if estimate.left_out:
        lines.append(f"{estimate.left_out} episodes do not count: the environment gave NaN or infinity")
    return lines


def _write(file: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dr3_ray.stores import make_folder, replacing

    names = {"played": "played", "seeds": "seed", "returns": "episode_return", "lengths": "length"}
    try:
        make_folder(file.resolve().parent)
        with replacing(file) as partial:
            pq.write_table(pa.table({names[name]: values for name, values in columns.items()}), partial)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror or error}): give another --every-return") from None
