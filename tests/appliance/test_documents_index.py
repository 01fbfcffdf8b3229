"""An index follows its folder, reads only what changed, and is whole whatever happens."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

import documents_support as d
import pytest

from appliance.core.db import reading
from appliance.core.errors import Busy, ConfigWrong, DataRejected, EngineFailed, NotFound
from appliance.core.events import read_events
from appliance.core.home import Home
from appliance.core.job import Job
from appliance.security import audit
from appliance.serve.documents import child, collections, indexing, walking
from appliance.serve.documents.indexing import stale
from appliance.serve.documents.job import refresh, run
from appliance.serve.documents.passages import Changed, open_passage
from appliance.serve.documents.retrieve import retrieve
from appliance.serve.documents.status import status


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return d.policies(tmp_path / "documents")


def best(home: Home, question: str) -> str:
    found = retrieve(home, ["policies"], question)
    return found[0].text if found else ""


def lines(home: Home) -> list[dict]:
    with reading(home) as link:
        return [entry for entry in audit.tail(link, 50) if entry["what"].startswith("docs.")]


def test_a_folder_becomes_a_collection(home: Home, place: Path) -> None:
    done = d.add(home, place)
    assert (done.added, done.changed, done.removed, done.passages, done.left_out) == (3, 0, 0, 3, {})
    assert collections.collections(home) == ["policies"]
    (leave,) = retrieve(home, ["policies"], "How many days of leave?", limit=1)
    assert (leave.file, leave.page, leave.text) == ("leave.txt", None, d.LEAVE)
    (dose,) = retrieve(home, ["policies"], "paracetamol", limit=1)
    assert (dose.file, dose.page, dose.text) == ("dose.pdf", 1, d.DOSE)
    (visits,) = retrieve(home, ["policies"], "visitors", limit=1)
    assert (visits.file, visits.heading) == ("wards/visits.md", "Visiting hours")
    known = status(home, "policies")
    assert (known.read, known.search, known.stale) == (3, "keywords only", 0)
    (line,) = lines(home)
    assert (line["who"], line["what"], line["target"], line["added"]) == ("test", "docs.add", "policies", 3)


def test_the_main_database_holds_no_document_text(home: Home, place: Path) -> None:
    job = Job(id="0001", kind="docs", folder=home.jobs / "0001", home=home)
    job.folder.mkdir()
    run({"folder": str(place), "collection": "policies"}, job)
    for file in [*home.path.glob("cloister.db*"), job.folder / "events.jsonl"]:
        content = file.read_bytes().lower()
        assert all(word not in content for word in (b"paracetamol", b"portal", b"leave.txt", b"visiting"))
    assert any(
        "not protected" in event.get("text", "") for event in read_events(job.folder / "events.jsonl")[0]
    )


def test_only_what_changed_is_read(home: Home, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d.add(home, place)
    read: list[str] = []
    reader = child.Reader.read

    def watched(self: child.Reader, handle: int, kind: str):
        read.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        return reader(self, handle, kind)

    monkeypatch.setattr(child.Reader, "read", watched)
    assert d.add(home, place, job="0002").same == 3 and read == []
    (place / "leave.txt").write_text("Staff now have 33 days of leave.")
    (place / "new.txt").write_text("The canteen opens at noon.")
    (place / "dose.pdf").unlink()
    os.utime(place / "wards/visits.md")
    assert stale(home, "policies") == 4
    done = d.add(home, place, job="0003")
    assert (done.added, done.changed, done.removed, done.same) == (1, 1, 1, 1)
    assert read == ["leave.txt", "new.txt", "visits.md"]
    assert best(home, "days of leave") == "Staff now have 33 days of leave."
    assert best(home, "canteen") and not best(home, "paracetamol")
    assert stale(home, "policies") == 0
    assert len(lines(home)) == 2, "an update that changes nothing is no change"


def test_a_change_that_keeps_size_and_time_is_seen(home: Home, place: Path) -> None:
    d.add(home, place)
    path = place / "leave.txt"
    before = path.stat()
    path.write_text(d.LEAVE.replace("30", "31"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert d.add(home, place, job="0002").changed == 1 and "31 days" in best(home, "leave")


def test_what_was_removed_is_not_in_the_file_any_more(home: Home, place: Path) -> None:
    (place / "gone.txt").write_text("The zyxwvut agreement. " * 2000)
    d.add(home, place)
    index = collections.index_path(home, "policies")
    assert b"zyxwvut" in index.read_bytes()
    (place / "gone.txt").unlink()
    d.add(home, place, job="0002")
    assert b"zyxwvut" not in index.read_bytes()
    with sqlite3.connect(index) as link:
        # Some builds of SQLite overwrite what they free; in others it would stand in the free pages.
        assert link.execute("PRAGMA freelist_count").fetchone()[0] == 0
    link.close()
    assert [file.name for file in index.parent.iterdir()] == ["index.db"]
    assert index.stat().st_mode & 0o077 == 0 or index.parent.stat().st_mode & 0o077 == 0


def test_what_cannot_be_read_is_reported_and_the_others_go_on(home: Home, place: Path) -> None:
    d.folder(
        place,
        {
            "scan.pdf": d.pdf([""]),
            "locked.pdf": d.encrypted_pdf("x", "secret"),
            "broken.pdf": b"%PDF-1.4",
            "program.txt": b"\x7fELF\0\0",
            "empty.txt": b"",
            "table.xlsx": b"PK",
            "~$letter.docx": b"x",
            "bad\x1b[2Jname.txt": b"text",
            ".hidden/secret.txt": b"secret",
        },
    )
    (place / "link.txt").symlink_to("/etc/hostname")
    (place / "way").symlink_to("/etc")
    os.mkfifo(place / "pipe.txt")
    odd = os.fsencode(place) + b"/\xff.txt"
    with open(odd, "wb") as stream:  # noqa: PTH123
        stream.write(b"text")
    done = d.add(home, place)
    reasons = {file.path: file.reason for file in status(home, "policies").files}
    assert {path: why for path, why in reasons.items() if why} == {
        "scan.pdf": "no text in it (a scan?)",
        "locked.pdf": "encrypted",
        "broken.pdf": "damaged",
        "program.txt": "binary, not text",
        "empty.txt": "empty",
        "table.xlsx": "not of a kind that is read",
        "~$letter.docx": "a lock file of an open document",
        "bad?[2Jname.txt": "its name holds control characters",
        "link.txt": "a link; links are not followed",
        "way": "a link; links are not followed",
        "pipe.txt": "not a regular file",
        "?.txt": "its name is not UTF-8",
    }
    assert done.passages == 3 and sum(done.left_out.values()) == 12
    assert d.add(home, place, job="0002").same == done.added
    (place / "scan.pdf").write_bytes(d.pdf(["The scan was read by hand."]))
    assert d.add(home, place, job="0003").added == 1 and "by hand" in best(home, "scan")


def test_a_link_put_in_the_way_later_is_not_followed(tmp_path: Path) -> None:
    inside = d.folder(tmp_path / "in", {"sub/a.txt": "text"})
    d.folder(tmp_path / "out", {"a.txt": "secret"})
    os.close(walking.open_inside(inside, "sub/a.txt"))
    (inside / "sub/a.txt").unlink()
    (inside / "sub/a.txt").symlink_to(tmp_path / "out/a.txt")
    with pytest.raises(walking.Unreadable):
        walking.open_inside(inside, "sub/a.txt")
    (inside / "sub/a.txt").unlink()
    os.mkfifo(inside / "sub/a.txt")
    with pytest.raises(walking.Unreadable, match="not a regular file"):
        walking.open_inside(inside, "sub/a.txt")
    (inside / "sub/a.txt").unlink()
    (inside / "sub").rmdir()
    (inside / "sub").symlink_to(tmp_path / "out")
    for path in ("sub/a.txt", "../out/a.txt", "sub/../../out/a.txt", "/etc/hostname", ""):
        with pytest.raises(walking.Unreadable):
            walking.open_inside(inside, path)


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "a" * 41, "ä", "a\n"])
def test_names_of_collections(home: Home, place: Path, name: str) -> None:
    with pytest.raises(ConfigWrong, match="a-z, 0-9"):
        d.add(home, place, name)
    with pytest.raises(ConfigWrong):
        retrieve(home, [name], "x")


def test_folders_that_are_refused(home: Home, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        d.add(home, place / "nowhere")
    for other in (place / "leave.txt", home.path, home.path.parent, home.jobs):
        with pytest.raises(ConfigWrong, match=r"cannot be a collection|is a file, not a folder"):
            d.add(home, other)
    d.add(home, place)
    with pytest.raises(ConfigWrong, match="is made from"):
        d.add(home, place / "wards")
    monkeypatch.setattr(walking, "MOST_FILES", 2)
    with pytest.raises(DataRejected, match="more than 2 files"):
        d.add(home, place)
    assert best(home, "leave"), "the index is as it was"


def test_one_writer_at_a_time(home: Home, place: Path) -> None:
    d.add(home, place)
    with collections.locked(home, "policies"):
        with pytest.raises(Busy):
            d.add(home, place, job="0002")
        with pytest.raises(Busy):
            collections.remove(home, "policies", who="test")
    assert best(home, "leave")


def test_removing(home: Home, place: Path) -> None:
    d.add(home, place)
    collections.remove(home, "policies", who="mira")
    assert list(home.documents.iterdir()) == [] and (place / "leave.txt").exists()
    assert [(line["who"], line["what"]) for line in lines(home)][-1] == ("mira", "docs.remove")
    for again in (lambda: collections.remove(home, "policies", who="x"), lambda: best(home, "leave")):
        with pytest.raises(NotFound):
            again()


def test_an_address_opens_that_very_text_or_nothing(home: Home, place: Path) -> None:
    d.add(home, place)
    (visits,) = retrieve(home, ["policies"], "visitors", limit=1)
    opened = open_passage(home, visits.address)
    assert opened.passage.text == visits.text and opened.checked
    assert opened.before + opened.passage.text + opened.after == (place / "wards/visits.md").read_text()
    short = visits.address.partition("@")[0].replace(f"#{visits.start}-", f"#{visits.start + 2}-")
    assert open_passage(home, short, around=3).passage.text == visits.text[2:]
    for wrong in (
        "x",
        "policies/none.txt#0-5",
        "other/leave.txt#0-5",
        "policies/leave.txt#5-5",
        "policies/leave.txt#0-9999",
        "policies/../leave.txt#0-5",
        "policies/leave.txt#0-999999999",
    ):
        with pytest.raises(NotFound):
            open_passage(home, wrong)
    with pytest.raises(NotFound, match="no collection"):
        open_passage(home, visits.address, allowed=["others"])
    shutil.move(place, place.parent / "away")
    assert not open_passage(home, visits.address).checked
    shutil.move(place.parent / "away", place)
    (place / "wards/visits.md").write_text("# Visiting hours\n\nNo visits.\n")
    with pytest.raises(Changed):
        open_passage(home, visits.address)
    d.add(home, place, job="0002")
    with pytest.raises(Changed):
        open_passage(home, visits.address)
    assert open_passage(home, "policies/wards/visits.md#18-28").passage.text == "No visits."
    (place / "wards/visits.md").unlink()
    with pytest.raises(Changed):
        open_passage(home, "policies/wards/visits.md#18-28")


def test_pages_are_joined_around_a_passage(home: Home, tmp_path: Path) -> None:
    d.add(home, d.folder(tmp_path / "f", {"a.pdf": d.pdf(["Page one.", "Page two.", "Page three."])}))
    (two,) = retrieve(home, ["policies"], "two", limit=1)
    opened = open_passage(home, two.address)
    assert (opened.before, opened.passage.text, opened.after) == (
        "Page one.\n\n",
        "Page two.",
        "\n\nPage three.",
    )
    assert opened.passage.page == 2


def test_a_spoilt_draft_is_not_used(home: Home, place: Path) -> None:
    d.add(home, place)
    draft = collections.index_path(home, "policies").with_name("draft-0002.db")
    draft.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    (place / "new.txt").write_text("The canteen opens at noon.")
    assert d.add(home, place, job="0002").added == 1 and best(home, "canteen")


def test_refresh_reads_what_changed(home: Home, place: Path) -> None:
    """Edit a document: the next answer has it, without a job and without training."""
    d.add(home, place)
    assert refresh(home, "policies", job="serve", who="mira") is None
    (place / "leave.txt").write_text("Staff now have 33 days of leave.")
    done = refresh(home, "policies", job="serve", who="mira")
    assert done is not None and (done.changed, done.same) == (1, 2)
    assert best(home, "days of leave") == "Staff now have 33 days of leave."
    assert lines(home)[-1]["who"] == "mira"
    shutil.rmtree(place)
    with pytest.raises(NotFound):
        refresh(home, "policies", job="serve", who="mira")
    assert best(home, "days of leave"), "a share that is away takes nothing with it"


def test_vectors_come_and_go_with_the_embedder(home: Home, place: Path) -> None:
    toy = d.Counting()
    assert d.add(home, place, embedder=toy.embedder).embedder == "toy"
    assert len(toy.seen) == 3 and "Visiting hours\n" in "".join(toy.seen)
    toy.seen.clear()
    (place / "leave.txt").write_text("Holidays: 33 days.")
    d.add(home, place, job="0002", embedder=toy.embedder)
    assert toy.seen == ["Holidays: 33 days."], "only what changed is embedded"
    assert status(home, "policies").search == "keywords and toy"
    other = d.Counting("other")
    d.add(home, place, job="0003", embedder=other.embedder)
    assert len(other.seen) == 3 and status(home, "policies").search == "keywords and other"
    d.add(home, place, job="0004")
    assert status(home, "policies").search == "keywords only"
    with sqlite3.connect(collections.index_path(home, "policies")) as link:
        assert link.execute("SELECT COUNT(*) FROM chunks WHERE vector IS NOT NULL").fetchone()[0] == 0
    link.close()


def test_an_embedder_that_fails_leaves_the_old_index(home: Home, place: Path) -> None:
    d.add(home, place)
    from appliance.serve.documents.embedding import Embedder

    bad = Embedder(name="bad", id="bad@1", embed=lambda texts: d.np.full((len(texts), 2), d.np.nan))
    with pytest.raises(EngineFailed):
        d.add(home, place, job="0002", embedder=bad)
    assert status(home, "policies").search == "keywords only" and best(home, "leave")


def test_a_full_disk_is_told(home: Home, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.core.errors import NoRoom

    d.add(home, place)
    (place / "new.txt").write_text("The canteen opens at noon.")

    def full(*parts: object, **rest: object) -> None:
        problem = sqlite3.OperationalError("database or disk is full")
        problem.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise problem

    monkeypatch.setattr(indexing.index, "put", full)
    with pytest.raises(NoRoom):
        d.add(home, place, job="0002")
    assert best(home, "leave") == d.LEAVE


def test_time_to_look_for_changes(home: Home, tmp_path: Path) -> None:
    place = d.folder(tmp_path / "many", {f"{n}.txt": f"File {n}." for n in range(300)})
    d.add(home, place)
    began = time.monotonic()
    assert stale(home, "policies") == 0
    assert time.monotonic() - began < 1
