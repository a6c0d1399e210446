"""What people call a data set."""

import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import unquote

from dr3_ray.data.addresses import cut_subset
from dr3_ray.data.mixture_names import MixtureName, is_mixture
from dr3_ray.data.subsets import Subset
from dr3_ray.errors import UserError
from dr3_ray.uris import is_uri


def dataset_labels(sources: Iterable[str]) -> dict[str, str]:
    """Return the short name of each data set, and the whole one where several have the same short name."""
    short = {source: dataset_label(source) for source in sources}
    often = Counter(short.values())
    return {source: label if often[label] == 1 else source for source, label in short.items()}


def dataset_label(source: str) -> str:
    """Return the short name of a data set: the last part of its path, without scheme, options or fingerprint.

    `source` is a path, a URI such as `s3://bucket/pong?endpoint_override=…#FINGERPRINT`, or `embedded:NAME`. A subset
    stands behind the name: `pong (split=train, take=best:0.1)`. A mixture: `pong 90% + breakout 10%`.
    """
    if is_mixture(source):
        return _mixture_label(MixtureName.parse(source))
    path, query = cut_subset(re.sub(r"#[0-9a-f]{8,}$", "", source))
    try:
        said = f" ({str(Subset.parse(query)).replace('&', ', ')})" if query else ""
    except UserError:  # no subset, but a part of the name
        path, said = path if is_uri(path) else f"{path}?{query}", ""
    if is_uri(path):
        path = unquote(path.partition("?")[0].partition("://")[2])
    elif named := re.fullmatch(r"(embedded|minari):(.+)", path):
        path = named[2]
    parts = [part for part in path.split("/") if part.strip() and part not in (".", "..")]
    return " ".join(parts[-1].split()) + said if parts else source


def _mixture_label(name: MixtureName) -> str:
    labels = dataset_labels(part.data for part in name.parts)
    if len(name.parts) == 1:
        return labels[name.parts[0].data]
    shares = [" to ".join(f"{float(100 * share):.4g}%" for share in part) for part in zip(*name.phases, strict=True)]
    said = [f"{labels[part.data]} {share}" for part, share in zip(name.parts, shares, strict=True)]
    return " + ".join(said) + (f" at {name.since:,}" if name.since else "")
