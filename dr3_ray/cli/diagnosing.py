"""`dr3-ray diagnose`: what is wrong with a trained critic."""

import sys
from typing import Annotated

import typer

from dr3_ray.cli.document import AsJson, print_document
from dr3_ray.cli.paths import here
from dr3_ray.cli.use import MemberOption, ObjectiveOption, SourceArgument, TrustOption, WhereOption, which_member


def diagnose(
    source: SourceArgument,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Episodes that RUN was not trained on. Of a CHECKPOINT: what it was trained on.",
            show_default="DATA?split=validation of a run on DATA?split=train",
        ),
    ] = None,
    member: MemberOption = "best",
    where: WhereOption = [],  # noqa: B006
    objective: ObjectiveOption = None,
    trust: TrustOption = False,
    as_json: AsJson = False,
) -> None:
    """Measure a trained critic on rows of its data and on held-out ones, and say in words what is wrong with it.

    Co-adaptation, ranks, dead and dormant units, SEEM's eigenvalue, over-estimation, and the rule behind each sentence.

    Example: dr3-ray diagnose runs/breakout --where dr3_coeff=0 --where seed=1

    Example: dr3-ray diagnose runs/breakout --data others --json
    """
    from dr3_ray.report.diagnosis import diagnose_member

    (place,) = here([source], checkpoints=True)
    diagnosis = diagnose_member(place, data, which_member(member, where), objective, trust)
    if as_json:
        print_document(diagnosis.to_dict())
        return
    about = diagnosis.about
    shown = ", ".join(f"{name} {about[name]:g}" for name in ("dr3_coeff", "seed") if name in about)
    print(f"{about['algorithm']} on {about['train']}, {shown}: {about['chosen']}".rstrip(": "), file=sys.stderr)
    print(diagnosis)
