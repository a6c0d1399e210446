"""Is a cluster file ready for `ray up`? What can be told without the cloud, one finding a line."""

import copy
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from dr3_ray.cli.doctor import Check
from dr3_ray.errors import first_line
from dr3_ray.uris import is_uri

PLACEHOLDERS = re.compile(r"\b(ACCOUNT|BUCKET|PROJECT|REGISTRY|ami-0123456789abcdef0|192\.168\.1\.1[012])\b")
NEEDED = {"aws": ("region",), "gcp": ("region", "availability_zone", "project_id"), "local": ("head_ip", "worker_ips")}
CLIENTS = {"aws": ("boto3", "boto3"), "gcp": ("googleapiclient", "google-api-python-client google-auth")}
PROFILES = {"aws": "IamInstanceProfile", "gcp": "serviceAccounts"}
RIGHTS = {
    "aws": "the head's role needs ec2:RunInstances, ec2:TerminateInstances, ec2:CreateTags, ec2:Describe* and "
    "iam:PassRole for the workers' role, beside the bucket: cluster/aws-head.json; the workers' cluster/aws-node.json",
    "gcp": "the head's account needs roles/compute.instanceAdmin.v1 and roles/iam.serviceAccountUser for the workers', "
    "beside roles/storage.objectAdmin for the bucket, which is all that the workers' needs",
}
EXTRA = "minatar"  # without it games of MinAtar are not played, and sweeps on their data have no returns


def examine(file: Path, storage: str | None = None) -> list[Check]:
    """Examine a file for `ray up`, or a RayJob of KubeRay, and the `--storage` that sweeps are to have there.

    What a cloud allows is not seen from here: a note says what it has to.
    """
    try:
        text = file.read_text()
        config = yaml.safe_load(text)  # as Ray reads it: YAML 1.1, by the library that Ray has
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return [Check(str(file), "failed", f"cannot be read: {first_line(error)}", "give the file of `ray up`")]
    if not isinstance(config, dict):
        return [Check(str(file), "failed", "is no YAML mapping", "give the file of `ray up`")]
    uncommented = "\n".join(line.partition(" #")[0] for line in text.splitlines() if not line.startswith("#"))
    left = sorted(set(PLACEHOLDERS.findall(uncommented)))
    checks = [_check("placeholders", not left, ", ".join(left) or "none", "put your own values in their places")]
    if config.get("kind") == "RayJob":
        return [*checks, *_job(config), *_storage("kuberay", storage)]
    provider = config.get("provider")
    kind = str(provider.get("type") if isinstance(provider, dict) else provider)
    examined = (_schema, _provider, _machines, _setup, _versions, _mounts, _token)
    try:
        return [*checks, *(check for look in examined for check in look(kind, config)), *_storage(kind, storage)]
    except (AttributeError, TypeError, KeyError) as error:  # a part of another kind than Ray's rules allow
        return [*checks, *_schema(kind, config), Check("contents", "failed", repr(error), "compare with cluster.yaml")]


def _check(name: str, right: bool, told: str, remedy: str = "", otherwise: Any = "failed") -> Check:
    return Check(name, "ok", told) if right else Check(name, otherwise, told, remedy)


def _schema(kind: str, config: dict[str, Any]) -> Iterator[Check]:
    """Check a file by Ray's own rules."""
    from dr3_ray.compat.ray import check_cluster_file

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # about mounts of files, which do no harm
            check_cluster_file(copy.deepcopy(config))
    except Exception as error:  # whatever a wrong file makes of Ray and jsonschema
        yield Check("Ray's rules", "failed", first_line(error), "see docs.ray.io, Cluster YAML Configuration Options")
    else:
        yield Check("Ray's rules", "ok", f"kept, for machines of {kind}")


def _provider(kind: str, config: dict[str, Any]) -> Iterator[Check]:
    known = ", ".join(NEEDED)
    yield _check("provider", kind in NEEDED, kind, f"docs/clusters.md knows {known}; others are yours to check", "note")
    lacking = [key for key in NEEDED.get(kind, ()) if not config["provider"].get(key)]
    yield _check("provider's keys", not lacking, ", ".join(lacking) + " missing" if lacking else "there", "add them")
    module, packages = CLIENTS.get(kind, ("ray", ""))
    yield _check(f"{module} here", find_spec(module) is not None, "for `ray up`", f"pip install {packages}")


def _machines(kind: str, config: dict[str, Any]) -> Iterator[Check]:
    """Check who may start machines, and who may use the bucket."""
    if kind == "local":
        starts = " ".join(config.get("head_start_ray_commands") or ())
        right = "RAY_enable_autoscaler_v2=0" in starts
        remedy = "export RAY_enable_autoscaler_v2=0 before `ray start --head`: the newer one starts no workers here"
        yield _check("autoscaler", right, "the older one" if right else "the newer one", remedy)
    if kind not in PROFILES:
        return
    key, head = PROFILES[kind], config.get("head_node_type")
    types = {
        name: (machine.get("node_config") or {}).get(key) for name, machine in config["available_node_types"].items()
    }
    for name, profile in types.items():
        remedy = f"give {name} one of your own" + ("" if name == head else ", or its trials cannot use the bucket")
        yield _check(f"{key} of {name}", bool(profile), "there" if profile else "missing", remedy)
    workers = [profile for name, profile in types.items() if name != head and profile]
    if types.get(head) in workers:
        yield Check(key, "note", "one for head and workers", "give workers their own, which starts no machines")
    yield Check("rights", "note", "not seen from here", RIGHTS[kind])


def _setup(kind: str, config: dict[str, Any]) -> Iterator[Check]:
    """Check that the package is installed, with the environments' packages, in the versions that were tested."""
    lists = [config.get(f"{who}setup_commands") or () for who in ("", "head_", "worker_")]
    command = " ".join(line for lines in lists for line in map(str, lines) if "pip install" in line)
    installs = re.search(r"(/|\s|^)dr3-ray(\[|[\s\"']|$)", command) is not None
    remedy = f"""add to setup_commands: pip install --constraint ~/dr3-ray/constraints.txt "$HOME/dr3-ray[{EXTRA}]\""""
    yield _check("package", installs, "installed" if installs else "not installed on the machines", remedy)
    if not installs:
        return
    extras = {line.strip() for extras in re.findall(r"dr3-ray\[([^\]]*)\]", command) for line in extras.split(",")}
    yield _check("extras", EXTRA in extras, ", ".join(sorted(extras)) or "none", f"{remedy}, for MinAtar's returns")
    pinned = re.search(r"(-c|--constraint)\b", command) is not None
    yield _check("constraints", pinned, "used" if pinned else "not used", "machines may differ: give --constraint")


def _versions(kind: str, config: dict[str, Any]) -> Iterator[Check]:
    """Check that Ray and Python are the same on all machines, this one included if it joins them."""
    ray, python = version("ray"), f"py{sys.version_info[0]}{sys.version_info[1]}"
    images = {str(docker.get("image")) for docker in _dockers(config) if docker.get("image")}
    for image in sorted(images):
        if match := re.search(r"ray[^:]*:(\d[\w.]*)-(py\d+)", image):
            yield _check("Ray in the image", match[1] == ray, match[1], f"{ray} is here: use the same")
            yield _check("Python in the image", match[2] == python, match[2], f"{python} is here", "note")
        else:
            yield Check("image", "note", image, f"it has to have Ray {ray}, which is here")
    for there, here in (config.get("file_mounts") or {}).items():
        if str(there).endswith("constraints.txt") and (path := Path(str(here)).expanduser()).is_file():
            pinned = re.search(r"(?m)^ray(?:\[.*\])?==(\S+)", path.read_text())
            wanted = pinned[1] if pinned else "any"
            yield _check("Ray in constraints", wanted == ray, wanted, f"{ray} is here: use the same")


def _dockers(config: dict[str, Any]) -> list[dict[str, Any]]:
    types = (config.get("available_node_types") or {}).values()
    return [config.get("docker") or {}, *(node.get("docker") or {} for node in types)]


def _mounts(kind: str, config: dict[str, Any]) -> Iterator[Check]:
    lost = [
        str(here) for here in (config.get("file_mounts") or {}).values() if not Path(str(here)).expanduser().exists()
    ]
    remedy = "call `ray up` from the root of the repository; ~/.ray/auth_token: ray get-auth-token --generate"
    yield _check("file_mounts", not lost, ", ".join(lost) + " not here" if lost else "all here", remedy)


def _token(kind: str, config: dict[str, Any]) -> Iterator[Check]:
    text = yaml.safe_dump({key: value for key, value in config.items() if key != "file_mounts"})
    mounted = any("auth_token" in str(there) for there in config.get("file_mounts") or {})
    closed = "RAY_AUTH_MODE=token" in text and mounted
    remedy = "export RAY_AUTH_MODE=token and mount ~/.ray/auth_token, as cluster.yaml does: others could run code there"
    yield _check("token", closed, "asked for" if closed else "not asked for", remedy)


def _job(config: dict[str, Any]) -> Iterator[Check]:
    cluster = (config.get("spec") or {}).get("rayClusterSpec") or {}
    image_ray, ray = str(cluster.get("rayVersion")), version("ray")
    yield _check("rayVersion", image_ray == ray, image_ray, f"{ray} is here, and should be in the image")
    mode = (cluster.get("authOptions") or {}).get("mode")
    yield _check("token", mode == "token", str(mode), "authOptions: {mode: token}: others could run code there")


def _storage(kind: str, storage: str | None) -> Iterator[Check]:
    """Check that all machines see the storage; in a cloud only a URI is seen by all."""
    if storage is not None:
        right = is_uri(storage) and not storage.startswith("file:")
        remedy = "machines share no folder: give --storage s3://BUCKET/PATH" + " or gs://BUCKET/PATH" * (kind == "gcp")
        scheme = storage.partition("://")[0] + "://" if right else storage
        yield _check("storage", right or kind == "local", scheme, remedy)
