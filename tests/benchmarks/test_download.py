"""Downloads: whole or not there, resumed, and by one process at a time."""

import contextlib
import fcntl
import hashlib
import http.server
import queue
import threading

import pytest

import benchmarks.download
from benchmarks.download import download, sha256
from ppcls_ssld.errors import WeightsError

CONTENT = bytes(range(256)) * 40


@contextlib.contextmanager
def serving(answer):
    """The address of a server that answers each GET with answer(handler)."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            answer(self)
            self.close_connection = True

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/file.pdparams"
        found.shutdown()


@pytest.fixture
def server():
    """A server that breaks off after half of a file, unless it is asked to go on. Gives (address, requests)."""
    asked = []

    def answer(request):
        first = int(request.headers.get("Range", "bytes=0-")[6:-1])
        asked.append((first, request.headers.get("If-Range")))
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(len(CONTENT) - first))
        request.send_header("ETag", '"one"')
        request.end_headers()
        request.wfile.write(CONTENT[first:] if first else CONTENT[:len(CONTENT) // 2])

    with serving(answer) as address:
        yield address, asked


def test_a_download_is_whole_or_not_there_and_goes_on_where_it_broke_off(server, tmp_path):
    address, asked = server
    path = tmp_path / "new" / "file.pdparams"
    with pytest.raises(WeightsError, match=r"the download failed .*; start again to go on, or put the file into"):
        download(address, path)
    assert not path.exists()
    assert download(address, path).read_bytes() == CONTENT
    assert asked == [(0, None), (len(CONTENT) // 2, '"one"')]
    assert sha256(path) == hashlib.sha256(CONTENT).hexdigest() and [p.name for p in path.parent.iterdir()] == [path.name]
    download(address, path)
    assert len(asked) == 2


def broken_chunk(request):
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"100\r\nless than that")


def no_status_line(request):
    request.wfile.write(b"SSH-2.0\r\n")


def not_found(request):
    request.send_error(404)


@pytest.mark.parametrize("answer", [broken_chunk, no_status_line, not_found])
def test_a_server_that_does_not_speak_to_the_end_is_told_of(tmp_path, answer):
    with serving(answer) as address, pytest.raises(WeightsError, match=r"the download failed \(.+\); start again, or put"):
        download(address, tmp_path / "file.pdparams")
    assert [p.name for p in tmp_path.iterdir()] in ([], ["file.pdparams.part"])


def test_a_file_that_the_server_changed_replaces_what_was_there_of_the_old_one(server, tmp_path):
    """Half of the old one is here, but the server sends the new one from its start."""
    path = tmp_path / "file.pdparams"
    (tmp_path / "file.pdparams.part").write_bytes(b"old" * len(CONTENT))
    with pytest.raises(WeightsError):
        download(server[0], path)
    assert (tmp_path / "file.pdparams.part").read_bytes() == CONTENT[:len(CONTENT) // 2]


def test_two_processes_do_not_write_one_file(server, tmp_path, monkeypatch):
    """The second waits for the first, and takes what that one has fetched."""
    address, asked = server
    path, part = tmp_path / "file.pdparams", tmp_path / "file.pdparams.part"
    said, got = queue.Queue(), queue.Queue()
    monkeypatch.setattr(benchmarks.download, "print", lambda text, **_: said.put(text), raising=False)
    with open(part, "wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: got.put(download(address, path).read_bytes()), daemon=True)
        second.start()
        assert "another process is downloading it; waiting" in said.get(timeout=20)
        first.write(b"whole")
        first.flush()
        part.replace(path)
    assert got.get(timeout=20) == b"whole" and not asked
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
