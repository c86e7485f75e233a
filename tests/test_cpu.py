"""The CPU: two that hide under one name are told apart."""

from __future__ import annotations

import platform

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
