"""A picture out of a request's body: as it is, or as the one file of a multipart form; never a file on disk."""

from __future__ import annotations

import re

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from toolkit.serve.refused import Refused

MOST_PARTS = 16


class _Parts:
    """The parts of a form that carry a file's name, in memory that the limit on bodies has bounded already."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.count = 0
        self._field, self._value, self._is_file = b"", b"", False
        self._data: list[bytes] = []

    def begin(self) -> None:
        self.count += 1
        if self.count > MOST_PARTS:
            raise Refused(400, f"the form has more than {MOST_PARTS} parts", "form")
        self._is_file, self._data = False, []

    def field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._is_file = b"filename" in parse_options_header(self._value)[1]
        self._field = self._value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._data.append(data[start:end])

    def end(self) -> None:
        if self._is_file:
            self.files.append(b"".join(self._data))


def picture_in(body: bytes, content_type: bytes) -> bytes:
    """Raises Refused: an empty body, or a form that is damaged or has not just one file."""
    kind, options = parse_options_header(content_type)
    picture = _file_of(body, options.get(b"boundary")) if kind == b"multipart/form-data" else body
    if not picture:
        raise Refused(400, "there is no picture in the request's body", "picture")
    return picture


def _file_of(body: bytes, boundary: bytes | None) -> bytes:
    if not boundary or not re.fullmatch(rb"[\x20-\x7e]{1,200}", boundary):
        raise Refused(400, "the form's Content-Type names no boundary", "form")
    parts = _Parts()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.begin,
            "on_header_field": parts.field,
            "on_header_value": parts.value,
            "on_header_end": parts.header,
            "on_part_data": parts.data,
            "on_part_end": parts.end,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise Refused(400, f"the form is damaged: {error}", "form") from None
    if len(parts.files) != 1:
        raise Refused(400, f"the form has {len(parts.files)} files, and one picture is classified at a time", "form")
    return parts.files[0]
