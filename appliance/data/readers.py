"""Records out of CSV, TSV, JSONL and JSON files, one at a time.

- A path is a file or a folder; of a folder every file of a known format is read, in order of name.
- Files are UTF-8, with or without a byte order mark.
- One unreadable line refuses the file: a file that is half read is a dataset nobody asked for.
- An error names file and line, never what stands there.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, BinaryIO

from appliance.core.errors import DataRejected, NotFound
from appliance.core.phi import Phi
from appliance.core.reading import open_reading, size_of
from appliance.data.columns import Columns, need_columns
from appliance.data.records import Record, chat_text

FIELD_CAP = 1_000_000  # characters in one field
LINE_CAP = 4_000_000  # bytes in one line or one JSON object
CHUNK = 1 << 16
FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")

Row = tuple[int, dict[str, Phi[Any]]]


def record_files(path: Path) -> tuple[list[Path], int]:
    """The files to read at `path`, in order, and how many others of the folder are left alone.

    Raises:
        NotFound: there is nothing at `path`.
        DataRejected: it is no format we read, or a folder without any.
    """
    if not path.exists():
        raise NotFound(f"There is no file or folder {path}.", "Check the path; a share may not be mounted.")
    if not path.is_dir():
        if path.suffix.lower() not in FORMATS:
            raise DataRejected(
                f"{path.name} is not of a format that can be read ({', '.join(FORMATS)}).",
                "Export it as CSV (UTF-8) with a header line, or as JSON lines.",
            )
        return [path], 0
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    readable = [file for file in files if file.suffix.lower() in FORMATS]
    if not readable:
        raise DataRejected(
            f"The folder {path} holds no file that can be read ({', '.join(FORMATS)}).",
            "Put the records there as CSV (UTF-8) with a header line, or as JSON lines.",
        )
    return readable, len(files) - len(readable)


def read_records(
    path: Path, columns: Columns, seen: Callable[[int], None] = lambda size: None
) -> Iterator[Record]:
    """The records at `path`, in file order; `seen` is told now and then how many bytes are behind.

    A record's id counts rows from 1 in reading order; its source is file and line. Empty texts,
    answers and units come through as they are: `clean` judges them. So does a whole conversation, in
    `text` (`chat_text`): `clean` parts its last answer from it.

    Raises:
        NotFound: there is nothing at `path`.
        DataRejected: a file that cannot be read, a column that is not in it, or a chat column that
        holds something else than messages.
    """
    files, _ = record_files(path)
    number = before = 0
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for line, row, size in _rows(file, name, columns):
            number += 1
            if number % 1000 == 0:
                seen(before + size)
            yield _record(row, columns, number, name, line)
        before += size_of(file)
        seen(before)


def first_rows(path: Path, most: int) -> list[dict[str, Phi[Any]]]:
    """The first rows of the first file at `path`, whatever its columns are.

    Raises:
        NotFound, DataRejected: as `read_records`.
    """
    file = record_files(path)[0][0]
    return [row for _, row, _ in islice(_rows(file, file.name, Columns(task="text", text="")), most)]


def _record(row: dict[str, Phi[Any]], columns: Columns, number: int, name: str, line: int) -> Record:
    def cell(column: str | None) -> str:
        value = row[column].plain if column and column in row else None
        if isinstance(value, str):
            text = value
        elif value is None:
            return ""
        elif isinstance(value, (bool, int, float)):
            text = json.dumps(value)
        else:
            raise _unreadable(name, line, f"column {column} holds a list or an object, not a text")
        if len(text) > FIELD_CAP:
            raise _unreadable(name, line, f"column {column} is longer than {FIELD_CAP:,} characters")
        return text

    def chat() -> str:
        """JSON files may hold the messages as a list; anywhere they may be that list as JSON text."""
        value = row[columns.text].plain if columns.text in row else None
        try:
            messages = value if isinstance(value, list) else json.loads(cell(columns.text).strip() or "null")
        except (ValueError, RecursionError) as problem:
            raise _unreadable(name, line, f"column {columns.text} holds no JSON list") from problem
        if messages is None:
            return ""
        if not isinstance(messages, list) or not all(map(_is_message, messages)):
            why = f"column {columns.text} is not a list of messages, each with a role and a content"
            raise _unreadable(name, line, why)
        if len(text := chat_text(messages)) > FIELD_CAP:
            raise _unreadable(name, line, f"column {columns.text} is longer than {FIELD_CAP:,} characters")
        return text

    facts = {column: value for column in columns.facts if (value := cell(column))}
    if columns.date and (date := cell(columns.date)):
        facts["date"] = date
    record = Record(
        id=f"{number:07d}",
        text=chat() if columns.task == "chat" else cell(columns.text),
        answer=cell(columns.answer),
        rejected=cell(columns.rejected),
        unit=(cell(columns.unit).strip() or None) if columns.unit else None,
        group=(cell(columns.group).strip() or None) if columns.group else None,
        source=f"{name}:{line}",
        facts=facts,
    )
    try:
        texts = (record.text, record.answer, record.rejected, record.unit or "", record.group or "")
        "".join((*texts, *facts.values())).encode()
    except UnicodeEncodeError as problem:
        raise _unreadable(name, line, "half a character (a lone surrogate)") from problem
    return record


def _is_message(value: Any) -> bool:
    """A message of a chat; a content that is null is an empty one."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content", 0), (str, type(None)))
    )


def _rows(file: Path, name: str, columns: Columns) -> Iterator[tuple[int, dict[str, Phi[Any]], int]]:
    """Line number, columns and bytes read so far, for every row of one file."""
    form = file.suffix.lower()
    read = {".csv": _csv_rows, ".tsv": _csv_rows, ".json": _array_rows}.get(form, _line_rows)
    count = 0
    try:
        with open_reading(file) as stream:
            _sniff(stream, name)
            for line, row in read(stream, name, columns):
                if count == 0:
                    need_columns(columns, row, name)
                count += 1
                yield line, row, stream.tell()
    except OSError as problem:
        raise DataRejected(
            f"{name} cannot be read: {problem.strerror or 'input error'}.",
            "Check the rights of the file and that the disk is whole.",
        ) from problem
    if count == 0:
        raise DataRejected(f"{name} holds no records.", "Check that the export has finished.")


def _sniff(stream: BinaryIO, name: str) -> None:
    """Refuse what is no UTF-8 text at first sight; leave the stream behind a byte order mark."""
    head = stream.read(8192)
    mark = codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b""
    if not head[len(mark) :].strip():
        raise DataRejected(f"{name} is empty.", "Check that the export has finished.")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataRejected(f"{name} is UTF-16, not UTF-8.", "Save it as UTF-8 (in Excel: CSV UTF-8).")
    if b"\0" in head:
        raise DataRejected(f"{name} is a binary file, not text.", "Export it as CSV or JSON lines.")
    stream.seek(len(mark))


def _csv_rows(stream: BinaryIO, name: str, columns: Columns) -> Iterator[Row]:
    csv.field_size_limit(FIELD_CAP)
    lines = _lines(stream, name)
    first = next(lines)
    rows = csv.reader(chain([first], lines), delimiter=_delimiter(first, columns), strict=True)
    try:
        header = [column.strip() for column in next(rows)]
        need_columns(columns, header, name)
        if twice := [column for column in columns.wanted() if header.count(column) > 1]:
            raise DataRejected(f"{name} has the column {twice[0]} twice.", "Rename one of them.")
        for row in rows:
            if len(row) < 2 and not "".join(row).strip():
                continue
            if len(row) != len(header):
                why = f"{len(row)} fields where the header has {len(header)}"
                raise _unreadable(name, rows.line_num, why)
            yield rows.line_num, dict(zip(header, map(Phi, row), strict=True))
    except csv.Error as problem:
        raise _unreadable(name, rows.line_num, _CSV_FAULTS.get(str(problem), "broken quoting")) from problem


def _delimiter(header: str, columns: Columns) -> str:
    """The mark that makes the wanted columns appear, else the most frequent one."""
    marks = sorted(",;\t|", key=header.count, reverse=True)
    for mark in marks:
        names = {name.strip().strip('"') for name in header.split(mark)}
        if names.issuperset(columns.wanted()):
            return mark
    return marks[0]


def _line_rows(stream: BinaryIO, name: str, columns: Columns) -> Iterator[Row]:
    for number, line in enumerate(_lines(stream, name), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise _unreadable(name, number, "not JSON") from problem
        yield number, _an_object(value, name, number)


def _array_rows(stream: BinaryIO, name: str, columns: Columns) -> Iterator[Row]:
    """The objects of one JSON array, without holding the whole file."""
    decode = json.JSONDecoder().raw_decode
    buffer, at, number, opened = "", 0, 1, False
    for chunk in _chunks(stream, name):
        buffer, at = buffer[at:] + chunk, 0
        while True:
            while at < len(buffer) and buffer[at] in " \t\r\n,":
                number += buffer[at] == "\n"
                at += 1
            if at == len(buffer):
                break
            if not opened and buffer[at] == "[":
                opened, at = True, at + 1
                continue
            if opened and buffer[at] == "]":
                return
            if not opened or buffer[at] != "{":
                raise _unreadable(name, number, "the file is not one JSON array of objects")
            try:
                value, end = decode(buffer, at)
            except (ValueError, RecursionError) as problem:
                if isinstance(problem, RecursionError) or len(buffer) - at > LINE_CAP:
                    raise _unreadable(name, number, "not JSON") from problem
                break
            yield number, _an_object(value, name, number)
            number += buffer.count("\n", at, end)
            at = end
    raise _unreadable(name, number, "not JSON, or the array does not end")


def _an_object(value: Any, name: str, line: int) -> dict[str, Phi[Any]]:
    if not isinstance(value, dict):
        raise _unreadable(name, line, "JSON, but not an object with named columns")
    return {column: Phi(held) for column, held in value.items()}


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    for number in count(1):
        line = stream.readline(LINE_CAP + 1)
        if not line:
            return
        if len(line) > LINE_CAP:
            raise _unreadable(name, number, f"longer than {LINE_CAP:,} bytes")
        try:
            yield line.decode()
        except UnicodeDecodeError as problem:
            raise _not_utf8(name, f"line {number}") from problem


def _chunks(stream: BinaryIO, name: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    while True:
        chunk = stream.read(CHUNK)
        try:
            yield decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as problem:
            raise _not_utf8(name, f"before byte {stream.tell():,}") from problem
        if not chunk:
            return


def _unreadable(name: str, line: int, why: str) -> DataRejected:
    return DataRejected(f"{name}, line {line}: {why}.", "Mend that line in the export, or leave it out.")


def _not_utf8(name: str, where: str) -> DataRejected:
    return DataRejected(f"{name}, {where}: not UTF-8.", "Save the file as UTF-8 (in Excel: CSV UTF-8).")


_CSV_FAULTS = {
    "unexpected end of data": "a quoted field begins and never ends",
    f"field larger than field limit ({FIELD_CAP})": f"a field is longer than {FIELD_CAP:,} characters",
}
