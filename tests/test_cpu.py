"""The CPU: two that hide under one name are told apart."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from toolkit import cpu

MASKED = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: {family}
model\t\t: {model}
model name\t: AMD EPYC
flags\t\t: sse2 {flags} avx2
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd40\n"


@pytest.fixture
def told(monkeypatch):
    def tell(text: str, machine: str = "x86_64") -> None:
        monkeypatch.setattr(cpu, "_info", lambda: text)
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(platform, "processor", lambda: "")

    return tell


def test_two_generations_under_one_name_are_two_devices(told):
    told(MASKED.format(family=25, model=17, flags="avx512_vnni"))
    one = cpu.name()
    told(MASKED.format(family=26, model=2, flags="avx512_vnni"))
    assert (one, cpu.name()) == ("AMD EPYC (family 25, model 17)", "AMD EPYC (family 26, model 2)")


def test_an_arm_part_is_named_by_its_number(told):
    told(ARM, "aarch64")
    assert cpu.name() == "aarch64 (part 0xd40)"
    assert cpu.flags() == ("asimd", "asimddp", "fp")
    assert cpu.has_vnni()


def test_without_cpuinfo_nothing_is_made_up(told):
    told("", "x86_64")
    assert (cpu.name(), cpu.flags(), cpu.has_vnni()) == ("x86_64", (), False)


@pytest.mark.parametrize(("flags", "expected"), [("avx512_vnni", True), ("avx_vnni", True), ("avx512f", False)])
def test_vnni_of_either_kind(told, flags, expected):
    told(MASKED.format(family=6, model=106, flags=flags))
    assert cpu.has_vnni() is expected


def group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("cpu_", "cpu.")).write_text(text)


def test_a_cgroups_quota_bounds_the_cores(tmp_path: Path) -> None:
    assert cpu.quota("0::/\n", tmp_path) is None, "no file, no bound"
    group(tmp_path, "a/b", cpu_max="max 100000\n")
    assert cpu.quota("0::/a/b\n", tmp_path) is None
    group(tmp_path, "a", cpu_max="150000 100000\n")
    assert cpu.quota("0::/a/b\n", tmp_path) == 1.5, "what bounds the group above bounds this one"
    group(tmp_path, "", cpu_max="50000 100000\n")
    assert cpu.quota("0::/somewhere/on/the/host\n", tmp_path) == 0.5, "in a container the files lie at the root"
    assert cpu.quota("", tmp_path) is None


def test_version_1_of_cgroups(tmp_path: Path) -> None:
    group(tmp_path / "cpu,cpuacct", "docker/x", cpu_cfs_quota_us="300000\n", cpu_cfs_period_us="100000\n")
    groups = "12:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n"
    assert cpu.quota(groups, tmp_path) == 3
    (tmp_path / "cpu,cpuacct/docker/x/cpu.cfs_quota_us").write_text("-1\n")
    assert cpu.quota(groups, tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 4), (0.5, 1), (1.5, 1), (2.0, 2), (64.0, 4)])
def test_cores_are_whole_and_never_none(monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(cpu, "quota", lambda groups: quota)
    assert cpu.cores() == expected
