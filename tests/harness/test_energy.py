"""RAPL as the kernel lays it out, in a folder of files; no machine of ours shows its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.harness.energy import meter, packages
from toolkit.harness.lane import Contender, Lane
from toolkit.harness.offline import closed_loop
from toolkit.harness.yardstick import NOTHING


def zone(root: Path, place: str, name: str, energy: int, wraps: int = 262_143_328_850) -> Path:
    folder = root / place
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps}\n")
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two sockets, their cores and memory as zones of their own, and one socket a second time over MMIO."""
    for socket in (0, 1):
        zone(tmp_path, f"intel-rapl:{socket}", f"package-{socket}", 1_000_000 * (socket + 1))
        zone(tmp_path, f"intel-rapl:{socket}:0", "core", 400_000)
        zone(tmp_path, f"intel-rapl:{socket}:1", "dram", 100_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    return tmp_path


def test_each_package_counts_once(machine: Path) -> None:
    assert [zone.name.partition(":")[2] for zone in packages(machine)] == ["0", "1"]
    found, why = meter(False, machine)
    assert found is not None
    assert (found.name, why) == ("RAPL, 2 CPU packages", "")
    assert found.read() == (1.0, 2.0)


def test_joules_are_the_difference_and_a_counter_may_wrap(machine: Path) -> None:
    found, _ = meter(False, machine)
    assert found is not None
    before = found.read()
    for place in machine.glob("*:0"):
        (place / "energy_uj").write_text("3500000")
    assert found.between(before, found.read()) == pytest.approx(2.5)
    (machine / "intel-rapl:1" / "energy_uj").write_text("500000")  # fell by 1.5 J: it began anew
    assert found.between(before, found.read()) == pytest.approx(2.5 + 262_143.32885 - 1.5)


def test_a_counter_that_vanishes_or_was_never_there_is_no_number(machine: Path, tmp_path: Path) -> None:
    found, _ = meter(False, machine)
    assert found is not None
    before = found.read()
    (machine / "intel-rapl:1" / "energy_uj").unlink()
    assert found.between(before, found.read()) is None
    assert meter(False, machine)[1].endswith("energy_uj can be read by root only")
    none, why = meter(False, tmp_path / "none")
    assert none is None
    assert "no RAPL package" in why


def test_a_bench_keeps_joules_of_what_it_counts(machine: Path) -> None:
    package = machine / "intel-rapl:0" / "energy_uj"

    def call() -> None:
        package.write_text(str(int(package.read_text()) + 2_000_000))

    for mmio in machine.glob("intel-rapl-mmio*"):
        (mmio / "name").unlink()  # else it would be read in place of the one that moves
    contender = Contender("a", 4, call, logits=False)
    lane = Lane(contender)
    lane._each = 5
    lane.turn(0, NOTHING, meter(False, machine)[0])
    measured = lane.measurement()
    assert measured.joules == pytest.approx(10.0), "the first call of a turn is not counted, in time or in joules"
    assert measured.images_per_joule == pytest.approx(2.0)
    assert measured.watts == pytest.approx(10 / (measured.duration_ns * 1e-9))
    trial = closed_loop(contender, 1, 0.01, meter=meter(False, machine)[0])
    assert trial.joules is not None
    assert trial.joules > 0
    assert closed_loop(contender, 1, 0.01).joules is None
