"""Reads that end, and writes that never leave half of anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.disk.files import cache_folder, decode_json, read_regular, require_place, sha256, write_atomically
from toolkit.errors import ToolkitError
from toolkit.recipe.toml import read_toml


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("kind", "words"), [("gone/x", "No such file or directory"), ("folder", "Is a directory")])
def test_a_write_that_cannot_be_names_the_file_and_not_its_draft(tmp_path: Path, kind: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / kind
    with pytest.raises(OSError, match=words) as told:
        write_atomically(path, b"x")
    assert str(told.value).endswith(f"{words}: '{path}'")
    with pytest.raises(ToolkitError, match=rf"cannot write {path}: {words}\. Name another"):
        require_place(path)
    require_place(tmp_path / "fits")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="it has no FIFOs")
@pytest.mark.parametrize("read", [sha256, read_regular])
def test_only_regular_files_are_read(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "fifo", tmp_path / "link", tmp_path):
        with pytest.raises(OSError, match=r"not a regular file"):
            read(path)  # type: ignore[operator]


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_regular(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="larger than the 4 bytes"):
        read_regular(tmp_path / "x", 4)


DEEP = (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize("text", [*DEEP, b"\xff", b"", b"1" * 9999], ids=lambda text: repr(text[:9]))
def test_json_that_is_none_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|utf-8|truncated|range"):
        decode_json(text)


def test_a_cache_needs_a_home_or_an_absolute_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, as the XDG specification says
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "resnet-deploy"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OSError, match="XDG_CACHE_HOME"):
        cache_folder()


@pytest.mark.parametrize("digits", ["9" * 400, "-" + "9" * 4000, "18446744073709551616"])
def test_a_number_beyond_64_bits_is_refused(digits: str) -> None:
    """It would become no float later, in the middle of a report."""
    with pytest.raises(ValueError, match="bits is beyond any"):
        decode_json(f'{{"a": [{{"b": {digits}}}]}}'.encode())
    with pytest.raises(ValueError, match="bits is beyond any"):
        read_toml(f"[a]\nb = [{digits}]")


def test_digits_in_texts_and_the_largest_numbers_are_taken() -> None:
    assert decode_json(b'{"a": "99999999999999999999999", "b": [18446744073709551615, -9223372036854775808]}') == {
        "a": "9" * 23, "b": [(1 << 64) - 1, -(1 << 63)],
    }  # fmt: skip


def test_a_file_that_grows_and_one_that_says_it_is_empty_are_read_to_their_end(tmp_path: Path) -> None:
    assert read_regular(Path("/proc/self/status")).startswith(b"Name:")
    assert len(read_regular(Path("/proc/self/status"), 1 << 20)) > 500
    with pytest.raises(OSError, match="larger than"):
        read_regular(Path("/proc/self/status"), 10)
