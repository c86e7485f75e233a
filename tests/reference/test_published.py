"""The cache of published checkpoints, against a real server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from toolkit.disk.drafts import DRAFT
from toolkit.errors import WeightsError
from toolkit.reference.published import BASE, CHECKPOINTS, cache_folder, fetch, published

CONTENT = bytes(range(256)) * 4000
NAME = f"toy-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Its address and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()
        thread.join()


def test_a_checkpoint_is_downloaded_once_and_then_found(server: tuple[str, Path], tmp_path: Path) -> None:
    address, served = server
    seen: list[tuple[int, int]] = []
    path = fetch(f"{address}/{NAME}", tmp_path / "cache" / "deep", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(seen) > 1
    (served / NAME).unlink()
    assert fetch(f"{address}/{NAME}", tmp_path / "cache" / "deep") == path


def test_a_download_with_another_hash_is_thrown_away(server: tuple[str, Path], tmp_path: Path) -> None:
    address, served = server
    (served / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=rf"{NAME} should have a SHA-256 that starts with"):
        fetch(f"{address}/{NAME}", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_download_left_goes_with_the_next(server: tuple[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / f".{NAME}.abcdefgh{DRAFT}").write_bytes(CONTENT[:1000])
    fetch(f"{server[0]}/{NAME}", folder)
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_a_cached_file_with_another_hash_is_refused_and_kept_for_its_owner(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=rf"Delete .*{NAME}"):
        fetch(f"http://127.0.0.1:9/{NAME}", tmp_path)
    assert (tmp_path / NAME).exists()


def test_what_cannot_be_downloaded_says_where_to_lay_it(server: tuple[str, Path], tmp_path: Path) -> None:
    for address in (f"{server[0]}/none-00000000.pth", "http://127.0.0.1:9/none-00000000.pth"):
        with pytest.raises(WeightsError, match=rf"Fetch {address} on .* and put it at {tmp_path}/none-00000000\.pth"):
            fetch(address, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["served"]


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="Set XDG_CACHE_HOME"):
        fetch(f"http://127.0.0.1:9/{NAME}", tmp_path / "file" / "cache")


def test_the_cache_follows_the_xdg_convention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "resnet-deploy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "resnet-deploy"


def test_a_file_that_was_laid_by_hand_is_checked_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_folder().mkdir()
    (cache_folder() / CHECKPOINTS["resnet50", "IMAGENET1K_V2"]).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="11ad3fa6"):
        published("resnet50", "IMAGENET1K_V2")


def test_addresses_are_torchvisions(torchvision) -> None:
    theirs = {}
    for name in ("18", "34", "50", "101", "152"):
        for weights in getattr(torchvision.models, f"ResNet{name}_Weights"):
            theirs[f"resnet{name}", weights.name] = weights.url
    assert {key: f"{BASE}/{name}" for key, name in CHECKPOINTS.items()} == theirs
