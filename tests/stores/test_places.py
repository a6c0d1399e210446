"""Places and names: the same folder by any spelling, and no name that leads out of a folder."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dr3_ray.data import load_dataset
from dr3_ray.data.addresses import Address
from dr3_ray.errors import UserError
from dr3_ray.remote import _limited, open_store
from dr3_ray.runs.fetch import home_of as fetch_home
from dr3_ray.runs.mirror import check_storage, opened
from dr3_ray.stores import inside, names_below, safe_name, same_place
from dr3_ray.uris import absolute, is_local, is_uri, local_path, names_folder, path_here

FEW = settings(max_examples=60, deadline=None)
NAMES = st.sampled_from(["a", "b", "runs", "ä b", "c#d", "e%20f", "g?h"])


@pytest.fixture(scope="module")
def tree():
    """A folder of folders and links to them, some of which are not there."""
    top = Path(tempfile.mkdtemp())
    (top / "runs" / "a" / "b").mkdir(parents=True)
    (top / "linked").symlink_to("runs")
    (top / "runs" / "up").symlink_to("..")
    (top / "dangling").symlink_to("runs/new")
    yield top
    shutil.rmtree(top)


def spellings(path: Path, top: Path) -> dict[str, str]:
    """The same folder, written otherwise."""
    name, folder = path.name, path.parent
    return {
        "plain": str(path),
        "slash": f"{path}/",
        "double": f"{folder}//{name}",
        "dots": f"{folder}/./{name}/x/..",
        "around": f"{path}/../{name}",
        "relative": os.path.relpath(path),
        "link": str(path).replace(f"{top}/runs", f"{top}/linked", 1),
        "loop": str(path).replace(f"{top}/runs", f"{top}/runs/up/runs", 1),
        "uri": path.as_uri(),
        "uri with a slash": f"{path.as_uri()}/",
        "uri with dots": f"{path.as_uri()}/../{path.as_uri().rpartition('/')[2]}",
    }


@FEW
@given(names=st.lists(NAMES, max_size=3), others=st.lists(NAMES, max_size=3), data=st.data())
def test_a_folder_is_itself_however_it_is_written(tree, names, others, data):
    one, other = tree.joinpath("runs", *names), tree.joinpath("runs", *others)
    how = st.sampled_from(sorted(spellings(one, tree)))
    first, second = (spellings(path, tree)[data.draw(how)] for path in (one, other))
    below = tuple(others[len(names) :]) if others[: len(names)] == names else None
    assert names_below(first, second) == below
    assert same_place(first, second) == (names == others)


def test_links_to_what_is_not_there_and_bind_mounts(tree):
    assert same_place(str(tree / "dangling"), str(tree / "runs" / "new"))
    assert names_below(str(tree / "dangling"), str(tree / "runs" / "new" / "x")) == ("x",)
    mounted = tree / "mounted"
    mounted.mkdir()
    if subprocess.run(["mount", "--bind", tree / "runs", mounted], capture_output=True).returncode:
        pytest.fail("bind mounts need root in a privileged container: run these tests there")
    try:
        assert same_place(str(mounted), str(tree / "linked"))
        assert names_below(str(tree / "runs"), str(mounted / "a" / "new")) == ("a", "new")
        assert names_below(str(mounted / "none"), str(tree / "runs" / "none" / "x")) == ("x",)
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.mark.parametrize(
    ("one", "other", "below"),
    [
        ("s3://b/p", "s3://b/p/", ()),
        ("s3://b/p", "S3://key:secret@b//p?region=eu-west-1", ()),
        ("s3://b/a%20b", "s3://b/a b", ()),
        ("s3://b/p?endpoint_override=h:9000", "s3://b/p?scheme=http&endpoint_override=http://H:9000/", ()),
        ("gs://b/p", "gcs://b/p/q", ("q",)),
        ("s3://b", "s3://b/p", ("p",)),
        ("s3://b/p", "s3://b/pq", None),
        ("s3://b/p", "s3://c/p", None),
        ("s3://b/p?endpoint_override=h:9000", "s3://b/p?endpoint_override=h:9001", None),
        ("s3://b/p", "gs://b/p", None),
        ("s3://b/p", "/b/p", None),
        ("/b/p", "s3://b/p", None),
    ],
)
def test_places_in_stores(one, other, below):
    assert names_below(one, other) == below


HARMLESS = st.text("abcé_-.0 ", min_size=1, max_size=20).filter(lambda name: set(name) != {"."})
PARTS = st.one_of(
    HARMLESS, st.sampled_from(["..", ".", "", "C:", "c:x", "a\\b", "a\0b", "\n", "\x7f", "\ud800", "~", "x" * 201, "-"])
)


@FEW
@given(parts=st.lists(PARTS, min_size=1, max_size=5))
@example(["..", "..", "etc", "passwd"])
@example(["", "etc", "passwd"])
@example(["a"] * 600)
def test_a_name_leads_into_its_folder_or_is_refused(parts):
    name = "/".join(parts)
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = inside(folder, name)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 250
            return
        assert os.path.realpath(path).startswith(f"{os.path.realpath(folder)}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("something")
        assert [each.read_text() for each in Path(folder).rglob("*") if each.is_file()] == ["something"]


@given(name=st.one_of(st.none(), st.integers(), st.lists(st.text())))
@settings(max_examples=10)
def test_what_is_no_text_is_no_name(name):
    with pytest.raises(UserError, match="do not trust"):
        safe_name(name)


def test_links_in_a_folder_are_not_followed(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir(), folder.mkdir()
    (folder / "there").symlink_to(outside)
    (folder / "file").symlink_to(outside / "file")
    for name in ("there/file", "there", "file"):
        with pytest.raises(UserError, match=r"is a link, which may lead out of .*/folder: remove it first"):
            inside(folder, name)
    (tmp_path / "link").symlink_to(folder)
    assert inside(tmp_path / "link", "other") == tmp_path / "link" / "other"  # which the user chose


def test_a_file_uri_with_one_slash_is_a_uri_too():
    assert is_uri("file:/a/b") and is_local("file:/a/b") and local_path("file:/a/b") == Path("/a/b")
    assert absolute("file:/a%20b") == absolute("file:///a%20b") == "file:///a%20b"
    assert same_place("file:/a/b", "/a/b")
    assert not is_uri("a:b/c") and not is_uri("/file:/a")


@pytest.mark.parametrize("path", ["a", "/a/b", "a b/c", "/s3:/b", "a:b", "c:", "a~/x", "/~/x", "#a"])
def test_a_path_stays_as_it_is(path):
    assert path_here(Path(path)) == Path(path)


@pytest.mark.parametrize("given", ["~/x", "~"])
def test_the_home_stands_for_its_sign_wherever_no_shell_has_been(given):
    home = Path.home() / given.removeprefix("~").removeprefix("/")
    assert path_here(Path(given)) == path_here(given) == home
    assert path_here(f"./{given}") == Path(given)  # as a shell has it, too
    assert absolute(given) == str(home.resolve()) and local_path(given) == home.resolve()


@pytest.mark.parametrize("uri", ["file:/a%20b/c", "file:///a%20b/c", "FILE:///a b/c"])
def test_the_uri_of_a_path_is_that_path(uri):
    assert path_here(uri) == local_path(uri) == Path("/a b/c")
    with pytest.raises(UserError, match="was a URI before it became a path: give the URI as text"):
        path_here(Path(uri))  # file://elsewhere/c is the same as a Path


@pytest.mark.parametrize("scheme", ["s3", "gs", "http", "abfs", "hdfs", "S3", "sqlite+x"])
def test_a_uri_is_no_path_whatever_made_a_path_of_it(scheme):
    said = rf"^{re.escape(scheme)}://.*@b/run is a URI: give a path of this"
    for slashes in ("://", ":/", ":///"):
        with pytest.raises(UserError, match=said) as refused:
            path_here(Path(f"{scheme}{slashes}KEYX:SECRETX@b/run"))
        assert "SECRETX" not in str(refused.value)


BLANKS = st.text(" \t\n", max_size=2)
WORDS = st.text("abcXYZ019._-", min_size=1, max_size=6)


@given(BLANKS, BLANKS, st.sampled_from(["file", "FILE"]), WORDS, WORDS)
def test_a_file_uri_has_no_machine_or_this_one(before, after, scheme, host, name):
    here = [f"{before}{scheme}:{slashes}/{name}/x{after}" for slashes in ("", "//", "//localhost", "//LOCALHOST")]
    assert all(path_here(uri) == local_path(uri) == Path(f"/{name}/x") for uri in here)
    assert all(local_path(absolute(uri)) == Path(f"/{name}/x") for uri in here)
    assume(host.lower() != "localhost")
    for use in (path_here, local_path, absolute, open_store):
        with pytest.raises(UserError, match=rf"is a file of {re.escape(host)}: give file:///PATH"):
            use(f"{before}{scheme}://{host}/{name}/x{after}")


@given(BLANKS, BLANKS, st.sampled_from(["s3", "gs", "http"]), WORDS)
def test_blanks_around_a_uri_do_not_make_a_path_of_it(before, after, scheme, name):
    uri = f"{before}{scheme}://b/{name}{after}"
    assert is_uri(uri) and not is_local(uri) and absolute(uri) == uri.strip()
    with pytest.raises(UserError, match=f"{scheme}://b/{re.escape(name)} is a URI"):
        path_here(uri)


@given(st.text(max_size=3), st.sampled_from(["s3", "file", "x"]), WORDS)
@example("\u200b", "s3", "a")
@example("'", "s3", "a")
@example("a b", "s3", "a")
@example("/x/", "file", "a")
def test_nothing_but_blanks_may_stand_before_a_scheme(before, scheme, name):
    assume(before.strip() and not re.fullmatch(r"\s*[A-Za-z][A-Za-z0-9+.-]*", before))
    assume("\0" not in before and not is_uri(before) and before.isprintable())
    for use in (path_here, local_path, absolute, open_store, Address.parse):
        with pytest.raises(UserError, match="is neither a path nor a URI: a URI begins with its scheme") as error:
            use(f"{before}{scheme}://{name}/x")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("sign", "written"), [("?", "%3F"), ("#", "%23")])
def test_a_path_in_a_uri_says_where_it_ends(sign, written):
    with pytest.raises(UserError, match=rf"has a \{sign}, which ends a path in a URI: write {written} for the sign"):
        path_here(f"file:///a{sign}b")
    assert path_here(f"file:///a{written}b") == local_path(f"file:///a{written}b") == Path(f"/a{sign}b")


@pytest.mark.parametrize("uri", ["file://", "file://localhost", " file:// ", "file:///a%00b"])
def test_a_file_uri_without_a_path_names_nothing(uri):
    for use in (path_here, local_path, absolute):
        with pytest.raises(UserError, match="names no path: write file:///PATH"):
            use(uri)


@pytest.mark.parametrize("name", ["a\0b", "\0", "\ud800", "embedded:\0", "s3://b/\0"])
@pytest.mark.parametrize("use", [absolute, path_here, local_path, open_store, Address.parse, load_dataset])
def test_names_that_no_file_can_have_are_one_line(use, name):
    with pytest.raises(UserError, match="no name of a file or store can have"):
        use(name)


@pytest.mark.parametrize("use", [absolute, path_here, local_path, open_store])
def test_links_to_themselves_are_one_line(use, tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for name in ("one", "two/inner"):
        with pytest.raises(UserError, match="leads to itself"):
            use(str(tmp_path / name))


STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "S3", "GS")


@given(st.sampled_from(STORES), st.sampled_from(["", "/", "/a", "?region=x", "/a?region=x", "#f", "user:word@", "@/a"]))
def test_a_store_without_a_bucket_is_one_line_wherever_it_is_opened(scheme, rest):
    for use in (open_store, opened, fetch_home, load_dataset):
        with pytest.raises(UserError, match="names no bucket: write") as error:
            use(f"{scheme}://{rest}")
        assert "\n" not in str(error.value) and "word" not in str(error.value)


@pytest.mark.parametrize("uri", ["mock://x", "MOCK://", "mock://b/a", "hf://a/b", "ftp://h/a", "http://h/a", "x://y"])
def test_what_is_no_store_of_ours_is_refused(uri, tmp_path):
    for use in (open_store, opened, fetch_home, load_dataset, lambda uri: check_storage(tmp_path / "run", uri)):
        with pytest.raises(UserError, match="is no store: give a path or a URI of"):
            use(uri)


@pytest.mark.parametrize("uri", ["gs://b/a", "gcs://b", "gs://b?scheme=http", "gs://b/a?retry_limit_seconds=7"])
def test_googles_client_has_a_limit_of_time(uri):
    found = _limited(uri)
    assert found.startswith(uri) and found.count("retry_limit_seconds=") == 1
    assert _limited("s3://b/gs://") == "s3://b/gs://"


@pytest.mark.parametrize("place", ["file", "file/inner", "/dev/null", "/proc/1", "/proc/1/x", "/dev/null/x"])
def test_no_folder_to_write_in_is_told_before_anything_is_written(place, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out, storage in ((tmp_path / place, None), (tmp_path / "run", str(tmp_path / place))):
        with pytest.raises(UserError, match="cannot be a folder to write in"):
            check_storage(out, storage)
    check_storage(tmp_path / "run", str(tmp_path / "new" / "storage"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_a_name_that_can_only_be_a_folders():
    assert all(map(names_folder, ("a/", "a/.", "..", ".", "a/b//", "a/..", "/")))
    assert not any(map(names_folder, ("a", "a.b", "a/..b", "...", "a/.b", "")))
