import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dtcflow.cli import main
from dtcflow.contracts import DtcflowError, InputError
from dtcflow.scores.fetch import PROVENANCE, PROVENANCE_COLUMNS, fetch_signatures
from dtcflow.scores.signatures import load_gmt

VERSION = "2024.1.Hs"
FILES = {
    f"/{VERSION}/h.all.v{VERSION}.symbols.gmt": "HALLMARK_A\tu\tTP53\tMYC\nHALLMARK_B\tu\tKRT8\tKRT8\tKRT18\n",
    f"/{VERSION}/c2.cp.v{VERSION}.symbols.gmt": (
        "KEGG_X\tu\tA\tB\nKEGG_MEDICUS_Y\tu\tA\nBIOCARTA_Z\tu\tC\nREACTOME_W\tu\tD\tE\n"
    ),
    f"/{VERSION}/c1.all.v{VERSION}.symbols.gmt": "KEGG_X\tu\tA\tB\n",
    f"/{VERSION}/c3.all.v{VERSION}.symbols.gmt": "<html>sign in</html>\n",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = FILES.get("/" + self.path.lstrip("/"))
        status = 503 if "c6.all" in self.path else 200 if body is not None else 404
        content = (body or "").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_collection_is_written_with_its_origin(server, tmp_path):
    folder = tmp_path / "sets"
    (one,) = fetch_signatures(["h.all"], folder, version=VERSION, url=server + "/")
    assert one.path == folder / f"h.all.v{VERSION}.symbols.gmt"
    assert {s.name: s.up for s in load_gmt(one.path)} == {
        "HALLMARK_A": ("TP53", "MYC"),
        "HALLMARK_B": ("KRT8", "KRT18"),
    }
    assert one.sha256 == hashlib.sha256(one.path.read_bytes()).hexdigest()
    header, row = (folder / PROVENANCE).read_text().splitlines()
    assert header == "\t".join(PROVENANCE_COLUMNS)
    assert row.split("\t")[:7] == [one.path.name, "h.all", VERSION, "2", "0", one.sha256, server]
    assert sorted(path.name for path in folder.iterdir()) == [PROVENANCE, one.path.name]


def test_restricted_sets_are_dropped_and_counted_and_a_second_run_replaces(server, tmp_path):
    for _ in range(2):
        found = fetch_signatures(["c2.cp", "h.all", "h.all"], tmp_path, version=VERSION, url=server)
    assert [(one.collection, one.n_sets, one.n_dropped) for one in found] == [("c2.cp", 1, 3), ("h.all", 2, 0)]
    assert [s.name for s in load_gmt(found[0].path)] == ["REACTOME_W"]
    assert len((tmp_path / PROVENANCE).read_text().splitlines()) == 3


def test_wrong_and_restricted_names_are_all_refused_before_anything_is_fetched(tmp_path):
    with pytest.raises(InputError) as error:
        fetch_signatures(
            ["c2.cp.kegg_legacy", "c2.cp.biocarta", "../h"], tmp_path / "x", version="last", url="http://x"
        )
    assert len(error.value.problems) == 4
    assert not (tmp_path / "x").exists()


def test_unknown_collections_and_odd_answers_leave_no_file(server, tmp_path):
    with pytest.raises(InputError, match=f"no collection c9.no in release {VERSION}"):
        fetch_signatures(["c9.no"], tmp_path, version=VERSION, url=server)
    with pytest.raises(DtcflowError, match="all 1 sets are of KEGG or BioCarta"):
        fetch_signatures(["c1.all"], tmp_path, version=VERSION, url=server)
    with pytest.raises(DtcflowError, match="is not a GMT file"):
        fetch_signatures(["c3.all"], tmp_path, version=VERSION, url=server)
    with pytest.raises(DtcflowError, match="it answered 503"):
        fetch_signatures(["c6.all"], tmp_path, version=VERSION, url=server)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_one_line_names_the_way_out(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["fetch-signatures", "h.all", "--out", str(tmp_path), "--url", f"http://127.0.0.1:{port}"]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert len(message.strip().splitlines()) == 1
    assert "scores.gmt" in message
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote(server, tmp_path, capsys):
    assert main(["fetch-signatures", "c2.cp", "--out", str(tmp_path), "--url", server]) == 0
    text = capsys.readouterr().out
    assert "1 sets, 3 of KEGG or BioCarta dropped, sha256" in text
    assert "scores.gmt" in text
