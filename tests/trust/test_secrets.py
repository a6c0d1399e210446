"""Keys in URIs: masked wherever they stand, whole where a store is opened."""

import os
import pickle
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import below
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.trust import secrets
from dr3_ray.trust.secrets import KEYS, MASK, keep_keys, masked, real, recall_keys, remember


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_real", {})
    monkeypatch.setattr(secrets, "_known", set())


SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8, max_size=20).map(
    lambda text: f"Zq{text}9x"  # so that it is no part of anything else
)
NAMES = st.text("abcdefghij", min_size=1, max_size=8)
PARAMETERS = st.sampled_from(
    ["access_key", "secret_key", "session_token", "password", "sslpassword", "sig", "sas", "api-key", "AccountKey",
     "x-amz-signature", "X-Amz-Credential", "token", "passwd", "pwd"]
)  # fmt: skip


@st.composite
def uris(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A URI with keys, and the keys as they stand there."""
    scheme = draw(st.sampled_from(["s3", "gs", "abfs", "https", "postgresql", "postgresql+psycopg", "mysql"]))
    hidden, user = [], ""
    if draw(st.booleans()):
        password = quote(draw(SECRETS), safe=draw(st.sampled_from(["", "/+=:"])))
        hidden.append(password)
        user = f"{draw(NAMES)}:{password}@"
    host = draw(NAMES) + draw(st.sampled_from(["", ":5432"]))
    path = "".join(f"/{name}" for name in draw(st.lists(NAMES, max_size=3)))
    options = [f"region={draw(NAMES)}", "endpoint_override=127.0.0.1:9000"][: draw(st.integers(0, 2))]
    for name in draw(st.lists(PARAMETERS, max_size=2, unique=True)):
        hidden.append(quote(draw(SECRETS), safe=""))
        options.insert(draw(st.integers(0, len(options))), f"{name}={hidden[-1]}")
    query = f"?{'&'.join(options)}" if options else ""
    assume(hidden)
    return f"{scheme}://{user}{host}{path}{query}", hidden


@settings(deadline=None, max_examples=200)
@given(uris())
def test_keys_are_masked_in_any_text_and_come_back_where_they_are_needed(made: tuple[str, list[str]]) -> None:
    uri, hidden = made
    secrets._real.clear(), secrets._known.clear()
    said = masked(f"storage {uri} cannot be used ('{uri}'): \"{uri}\", {uri}#fingerprint")
    assert not any(each in said for each in hidden) and MASK in said
    assert not any(each in str(UserError(f"no {uri}")) for each in hidden)
    assert not any(each in first_line(OSError(f"no {uri}")) for each in hidden)
    kept = remember(uri)
    assert kept == masked(uri) == masked(kept) == remember(kept)
    assert real(kept) == uri and real(uri) == uri
    assert real(f"{kept}#print") == f"{uri}#print"
    if uri.startswith("s3"):
        assert real(below(kept, "data", "x")) == below(uri, "data", "x")
    for each in hidden:
        assert each not in masked(f"the store said: {each} is wrong")


@settings(deadline=None, max_examples=100)
@given(NAMES, st.lists(NAMES, max_size=3), st.sampled_from(["", "?region=x&endpoint_override=http://h:9000", "#ab"]))
def test_what_has_no_keys_stays_as_it_is(host: str, path: list[str], rest: str) -> None:
    for text in (f"s3://{host}/{'/'.join(path)}{rest}", f"postgresql://{host}@db:5432/x", f"sqlite:////a/{host}@b.db"):
        assert masked(text) == remember(text) == real(text) == text
    assert masked(f"/a/{host}:x@y and user@{host}:22") == f"/a/{host}:x@y and user@{host}:22"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://AKIA12345:se/cr+et@bucket/p", "s3://***@bucket/p"),  # a secret that should have been quoted
        ("postgresql://me:p@ss:w@host/db", "postgresql://me:***@host/db"),
        ("https://token-of-mine@host/x", "https://***@host/x"),
        ("s3://b/p?endpoint_override=http://me:hidden@h:9000", "s3://b/p?endpoint_override=http://***@h:9000"),
        ("s3://b/p?endpoint_override=http%3A%2F%2Fme%3Ahidden%40h", "s3://b/p?endpoint_override=http%3A%2F%2F***%40h"),
        ("postgresql:///db?host=/run&user=me&password=hidden", "postgresql:///db?host=/run&user=me&password=***"),
    ],
)  # fmt: skip
def test_odd_ones(uri: str, shown: str) -> None:
    assert masked(uri) == remember(uri) == shown
    assert real(shown) == uri


def test_keys_that_nobody_knows_are_left_to_the_environment() -> None:
    assert real("s3://***@b/p?region=x&secret_key=***") == "s3://b/p?region=x"
    assert real("postgresql://me:***@host/db") == "postgresql://me@host/db"
    assert real("postgresql://me@host/db?password=***") == "postgresql://me@host/db"


def test_two_keys_of_one_bucket_are_told_apart_by_where_they_are_for() -> None:
    reads, writes = remember("s3://READS:reads-it@b/data"), remember("s3://WRITES:writes-it@b/runs")
    assert real(f"{reads}/x") == "s3://READS:reads-it@b/data/x"
    assert real(f"{writes}/y") == "s3://WRITES:writes-it@b/runs/y"


def test_variables_with_keys_are_masked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    assert str(UserError("it said wJalrXUtnFEMI")) == "it said ***"
    assert "wJalr" not in str(pickle.loads(pickle.dumps(UserError("wJalrXUtnFEMI"))))


def test_they_are_kept_for_their_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keep_keys(tmp_path, "nothing")
        assert not (tmp_path / KEYS).exists()
        uri = "s3://KEY:hidden@b/p"
        keep_keys(tmp_path, f"storage: {remember(uri)}")
    finally:
        os.umask(before)
    assert (tmp_path / KEYS).stat().st_mode & 0o777 == 0o600
    secrets._real.clear()
    recall_keys(tmp_path)
    assert real("s3://***@b/p") == uri
    for damaged in (b"", b"[" * 10**5, b"\x80", b'{"a": 1}', b"[3, null]"):
        (tmp_path / KEYS).write_bytes(damaged)
        recall_keys(tmp_path)


def test_a_specification_holds_none() -> None:
    uri, study = "s3://KEY:hidden-a@b/p", "postgresql://me:hidden-b@h/db"
    spec = SweepSpec(
        datasets=[uri], storage=uri, search={"method": "tpe", "trials": 2, "study": study}, coefficients=[0.1],
        exclude=[{"dataset": uri}], axes={"critic_lr": {"log_uniform": [1e-4, 1e-2]}},
    )  # fmt: skip
    assert "hidden" not in f"{spec!r} {spec.model_dump_json()}"
    assert real(spec.checkpoints) == uri and spec.search is not None and real(spec.search.study or "") == study
