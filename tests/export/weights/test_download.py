"""A download: whole and verified, or not there; resumed where it broke off, and never glued together."""

import contextlib
import hashlib
import http.server
import pathlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from export import errors
from export.weights import download, transfer
from tests.export.weights import web

CONTENT, OTHER = random.Random(0).randbytes(300_000), random.Random(1).randbytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"net-{DIGEST[:8]}.pth"
AT_ONCE = (0.0, 0.0, 0.0)


@contextlib.contextmanager
def unseen(text: str) -> Iterator[transfer.Report]:
    yield lambda done, total: None


def fetch(url: str, cache: pathlib.Path, pauses_s: tuple[float, ...] = AT_ONCE) -> bytes:
    return download.fetch(url, cache, unseen, pauses_s).read_bytes()


def left_over(cache: pathlib.Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_file_is_fetched_once_and_kept(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(CONTENT)) as site:
        assert fetch(f"{site.url}/models/{NAME}", tmp_path) == CONTENT
        assert fetch(f"{site.url}/models/{NAME}", tmp_path) == CONTENT
        assert len(site.requests) == 1
    assert left_over(tmp_path) == [NAME]


def test_the_way_is_shown_in_bytes(tmp_path: pathlib.Path) -> None:
    shown: list[tuple[str, int, int | None]] = []

    @contextlib.contextmanager
    def watched(text: str) -> Iterator[transfer.Report]:
        yield lambda done, total: shown.append((text, done, total))

    with web.site(web.whole(CONTENT)) as site:
        download.fetch(f"{site.url}/{NAME}", tmp_path, watched)
    assert shown[-1] == (f"downloading {NAME}", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in shown] == sorted(done for _, done, _ in shown)


def test_the_bar_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with download.bar("downloading [bold]") as report:
        report(1, 2)
        report(2, None)
    assert "downloading [bold]" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [web.whole(CONTENT, after=100_000), web.chunked(CONTENT[:100_000], is_whole=False)])
def test_what_broke_off_goes_on_from_there(cut: web.Answer, tmp_path: pathlib.Path) -> None:
    with web.site(cut, web.ranged(CONTENT)) as site:
        assert fetch(f"{site.url}/{NAME}", tmp_path) == CONTENT
        resumed = site.requests[1]
    assert 0 < int(resumed["Range"].removeprefix("bytes=").removesuffix("-")) <= 100_000
    assert resumed["If-Range"] == '"1"'
    assert left_over(tmp_path) == [NAME]


def test_the_next_run_goes_on_where_the_last_broke_off(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(CONTENT, after=100_000), web.ranged(CONTENT)) as site:
        with pytest.raises(errors.DownloadError, match=r"broke off after 100,000 of 300,000 bytes; run again to go on"):
            fetch(f"{site.url}/{NAME}", tmp_path, ())
        assert left_over(tmp_path) == [f"{NAME}.part", f"{NAME}.part.tag"]
        assert fetch(f"{site.url}/{NAME}", tmp_path, ()) == CONTENT
        assert site.requests[1]["Range"] == "bytes=100000-"


def test_a_date_will_do_where_there_is_no_strong_etag(tmp_path: pathlib.Path) -> None:
    date = "Mon, 02 Nov 2026 10:00:00 GMT"
    with web.site(web.whole(CONTENT, 'W/"1"', 9, Last_Modified=date), web.whole(CONTENT, "")) as site:
        assert fetch(f"{site.url}/{NAME}", tmp_path) == CONTENT
        assert site.requests[1]["If-Range"] == date


@pytest.mark.parametrize(
    ("then", "requests"),
    [
        (web.whole(CONTENT), 2),  # a server without ranges
        (web.ranged(CONTENT, '"2"'), 2),  # another file by now: the server sends all of it
        (web.ranged(CONTENT, '"2"', heeds_if_range=False), 3),  # the same, and the server sends the rest of it
    ],
)
def test_halves_of_different_files_are_never_joined(then: web.Answer, requests: int, tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(OTHER, '"1"', 100_000), then) as site:
        assert fetch(f"{site.url}/net.pth", tmp_path) == CONTENT
        assert len(site.requests) == requests


def test_without_a_name_for_its_state_a_part_is_not_continued(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(CONTENT, "", 100_000), web.whole(CONTENT, "")) as site:
        assert fetch(f"{site.url}/{NAME}", tmp_path) == CONTENT
        assert site.requests[1]["Range"] is None


def test_a_part_that_the_server_cannot_continue_is_dropped(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(CONTENT, after=9), web.status(416), web.ranged(CONTENT)) as site:
        assert fetch(f"{site.url}/{NAME}", tmp_path) == CONTENT
        assert site.requests[2]["Range"] is None


def test_another_content_than_the_name_says_is_deleted(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(OTHER), web.whole(CONTENT)) as site:
        with pytest.raises(errors.DownloadError, match=rf"SHA-256 begins with \w+, expected {DIGEST[:8]}; deleted it"):
            fetch(f"{site.url}/{NAME}", tmp_path)
        assert left_over(tmp_path) == []
        assert fetch(f"{site.url}/{NAME}", tmp_path) == CONTENT


def test_a_fragment_states_the_hash_of_a_file_without_one(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(CONTENT)) as site:
        assert fetch(f"{site.url}/net.pth#sha256={DIGEST}", tmp_path) == CONTENT
        with pytest.raises(errors.DownloadError, match=r"is not that file any more; delete it"):
            fetch(f"{site.url}/net.pth#sha256={'0' * 64}", tmp_path)
        with pytest.raises(errors.DownloadError, match=r"#md5=1 says nothing here; expected #sha256="):
            fetch(f"{site.url}/net.pth#md5=1", tmp_path)


def test_a_kept_file_that_has_changed_is_not_used(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(CONTENT)) as site:
        download.fetch(f"{site.url}/{NAME}", tmp_path, unseen).write_bytes(OTHER)
        with pytest.raises(errors.DownloadError, match=r"is not that file any more; delete it"):
            fetch(f"{site.url}/{NAME}", tmp_path)


def test_files_of_the_same_name_are_kept_apart(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(CONTENT), web.whole(OTHER)) as site:
        assert fetch(f"{site.url}/a/net.pth", tmp_path) == CONTENT
        assert fetch(f"{site.url}/b/net.pth", tmp_path) == OTHER


@pytest.mark.parametrize(
    "page", [web.whole(b"anything", Content_Type="text/html; charset=utf-8"), web.whole(b"\n <!DOCTYPE html>")]
)
def test_a_web_page_is_no_file(page: web.Answer, tmp_path: pathlib.Path) -> None:
    with web.site(page) as site, pytest.raises(errors.DownloadError, match="sent a web page"):
        fetch(f"{site.url}/{NAME}", tmp_path)
    assert NAME not in left_over(tmp_path)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (404, "no such file is there; check the address"),
        (401, "wants a login"),
        (403, "denies it"),
        (410, "answers Gone"),
    ],
)
def test_a_final_refusal_is_explained_at_once(code: int, sentence: str, tmp_path: pathlib.Path) -> None:
    with web.site(web.status(code)) as site:
        with pytest.raises(errors.DownloadError, match=rf"{sentence} \(HTTP {code}\)\. .*--weights FILE.*random"):
            fetch(f"{site.url}/{NAME}", tmp_path)
        assert len(site.requests) == 1


def test_a_server_in_trouble_is_asked_again(tmp_path: pathlib.Path) -> None:
    with web.site(web.status(500), web.status(503), web.status(429), web.whole(CONTENT)) as site:
        assert fetch(f"{site.url}/{NAME}", tmp_path) == CONTENT


def test_after_the_last_pause_it_is_given_up(tmp_path: pathlib.Path) -> None:
    with web.site(web.status(503)) as site:
        with pytest.raises(errors.DownloadError, match=r"Service Unavailable \(HTTP 503\)"):
            fetch(f"{site.url}/{NAME}", tmp_path)
        assert len(site.requests) == 1 + len(AT_ONCE)
    assert list(download.PAUSES_S) == sorted(download.PAUSES_S)


def test_a_silent_server_is_not_waited_for_without_end(tmp_path: pathlib.Path) -> None:
    done = threading.Event()

    def silence(_: http.server.BaseHTTPRequestHandler) -> None:
        done.wait(30)

    with web.site(silence) as site:
        with pytest.raises(errors.DownloadError, match=r"was silent for 0\.1 s"):
            download.fetch(f"{site.url}/{NAME}", tmp_path, unseen, (), timeout_s=0.1)
        done.set()


def test_no_connection_and_no_such_host_are_explained(tmp_path: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(errors.DownloadError, match=r"connection failed: .*refused"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}", tmp_path)
    with pytest.raises(errors.DownloadError, match=r"the host weights\.invalid is not found; check the address"):
        fetch(f"https://weights.invalid/{NAME}", tmp_path)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://example.com/a.pth", r"http:// is not safe from changes on the way; expected https://"),
        ("ftp://127.0.0.1/a.pth", r"ftp:// is not safe"),
        ("file:///etc/passwd", r"file:// is not safe"),
        ("https://host:port/a.pth", r"this is no address"),
        ("https://a..b/a.pth", r"the connection failed"),
        ("https://example.com/", r"the address names no file"),
        ("https://example.com/a%2F..", r"the address names no file"),
    ],
)
def test_unsafe_and_senseless_addresses_are_refused(url: str, sentence: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.DownloadError, match=sentence):
        fetch(url, tmp_path)


def test_a_redirection_is_followed_but_not_to_where_it_is_unsafe(tmp_path: pathlib.Path) -> None:
    with web.site(web.elsewhere("/there"), web.whole(CONTENT)) as site:
        assert fetch(f"{site.url}/{NAME}", tmp_path / "a") == CONTENT
    unsafe = pytest.raises(errors.DownloadError, match="is not safe from changes")
    with web.site(web.elsewhere("http://example.com/a.pth")) as site, unsafe:
        fetch(f"{site.url}/{NAME}", tmp_path / "b")


def test_no_file_leaves_the_cache(tmp_path: pathlib.Path) -> None:
    with web.site(web.whole(CONTENT)) as site:
        path = download.fetch(f"{site.url}/..%2F..%2Fnet.pth", tmp_path / "cache", unseen)
    assert path.is_relative_to(tmp_path / "cache")


def test_no_room_and_no_folder_are_explained(tmp_path: pathlib.Path) -> None:
    no_room = pytest.raises(
        errors.DownloadError, match=r"no room in .* are wanted, .* are free.; make some, or set FOVEA_CACHE"
    )
    with web.site(web.whole(CONTENT, Content_Length=str(10**18))) as site, no_room:
        fetch(f"{site.url}/{NAME}", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(errors.DownloadError, match=r"file cannot be used .*FOVEA_CACHE"):
        fetch(f"https://example.com/{NAME}", tmp_path / "file")


def test_two_at_once_fetch_it_once(tmp_path: pathlib.Path) -> None:
    second_waits = threading.Event()
    texts: list[str] = []
    contents: list[bytes] = []

    @contextlib.contextmanager
    def watched(text: str) -> Iterator[transfer.Report]:
        texts.append(text)
        if text.startswith("waiting"):
            second_waits.set()
        yield lambda done, total: None

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        assert second_waits.wait(30)
        web.whole(CONTENT)(handler)

    with web.site(answer) as site:

        def run() -> None:
            contents.append(download.fetch(f"{site.url}/{NAME}", tmp_path, watched).read_bytes())

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(site.requests) == 1
    assert contents == [CONTENT, CONTENT]
    assert sorted(texts) == [f"downloading {NAME}", f"waiting for another process that downloads {NAME}"]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"FOVEA_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, pathlib.Path("/a")),
        ({"FOVEA_CACHE": "", "XDG_CACHE_HOME": "/b"}, pathlib.Path("/b/fovea/weights")),
        ({}, pathlib.Path.home() / ".cache/fovea/weights"),
    ],
)
def test_the_cache_is_where_the_environment_says(environment: dict[str, str], folder: pathlib.Path) -> None:
    assert download.cache_folder(environment) == folder
