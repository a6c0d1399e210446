"""The short name of a data set, for every way in which people name one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.data.labels import dataset_label

NAME = st.from_regex(r"[a-z0-9][a-z0-9._ -]{0,20}[a-z0-9]", fullmatch=True).map(lambda name: " ".join(name.split()))
FOLDERS = st.lists(NAME, max_size=4)
ANYTHING = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
FINGERPRINT = st.just("") | st.from_regex(r"#[0-9a-f]{16,64}", fullmatch=True)
OPTIONS = st.sampled_from(["", "?scheme=http", "?endpoint_override=http://h:9000", "?a=b/c&endpoint_override=h:9000/x"])


@given(name=NAME, folders=FOLDERS, options=OPTIONS, fingerprint=FINGERPRINT, end=st.sampled_from(["", "/"]))
@pytest.mark.parametrize("scheme", ["s3://bucket/", "gs://bucket/", "file:///", "s3://key:secret@bucket/"])
def test_the_last_part_of_the_path_of_a_uri(scheme, name, folders, options, fingerprint, end):
    assert dataset_label(f"{scheme}{'/'.join([*folders, name])}{end}{options}{fingerprint}") == name


@given(name=NAME, folders=FOLDERS, fingerprint=FINGERPRINT, start=st.sampled_from(["", "/", "./", "../"]))
def test_the_last_part_of_a_path(name, folders, fingerprint, start):
    assert dataset_label(f"{start}{'/'.join([*folders, name])}{fingerprint}") == name


@given(name=NAME)
def test_the_name_of_an_embedded_one(name):
    assert dataset_label(f"embedded:{name}") == name


@given(ANYTHING | st.builds("s3://{}".format, ANYTHING))
def test_there_is_always_one_of_one_line(source):
    label = dataset_label(source)
    assert label and (label == source or not re.search(r"[\n/]", label))


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("s3://b/pong?endpoint_override=http://h:9000", "pong"),
        ("minari:D4RL/door/human-v2", "human-v2"),
        ("/data/what?really#1", "what?really#1"),
        ("s3://bucket", "bucket"),
        ("/", "/"),
    ],
)
def test_by_hand(source, label):
    assert dataset_label(source) == label
