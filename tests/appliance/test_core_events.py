"""The event file of a job."""

from __future__ import annotations

from pathlib import Path

from appliance.core.events import append_event, read_events


def test_a_line_cut_short_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, "started")
    with path.open("ab") as stream:
        stream.write(b'{"at": "2026-11-27T08:47:39", "event": "progr')
    append_event(path, "started")
    assert [event["event"] for event in read_events(path)[0]] == ["started", "started"]
