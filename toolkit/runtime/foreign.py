"""Is this engine one for this library, GPU or CPU? Answered from the manifest alone: some libraries crash on a foreign file."""

from __future__ import annotations

import warnings
from typing import Any

from toolkit.cpu import has_vnni
from toolkit.errors import EngineError
from toolkit.manifest import Manifest
from toolkit.runtime.device import Device

AGAIN = "Build the engine again"
SATURATES = "its INT8 weights saturate in 16-bit sums on a CPU without VNNI"


def warn_of_cpu(manifest: Manifest) -> None:
    """Warn (RuntimeWarning) where an engine was built for CPUs with VNNI and this one has none: its answers are worse here."""
    built_for = manifest.settings.get("cpu")
    if built_for is None and manifest.precision.startswith("int8") and "VNNI" in manifest.device:
        built_for = "vnni"  # by a toolkit that did not write it down
    if built_for == "vnni" and not has_vnni():
        what = f"{manifest.name} is for CPUs with VNNI, which this one lacks: {SATURATES}, and its verdict does not hold here"
        warnings.warn(f'{what}. Set `build.cpu = "any"` and build it again', RuntimeWarning, stacklevel=3)


def refuse_foreign(manifest: Manifest, library: Any, device: Device | None = None) -> None:
    """Raises EngineError where the manifest wants another library, version or (if `device` is given) GPU than is here."""
    target, package = manifest.to_target(), library.__name__
    wanted = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}.get(target.kind)
    if package.removesuffix("_bindings") != wanted:
        what = f"{manifest.name} is an engine for {manifest.target}; {package} cannot run it"
        raise EngineError(what, remedy=f"Load it with {wanted}")
    built_by = manifest.versions.get(str(wanted), "an unknown version")
    if built_by != library.__version__ and not manifest.settings.get("version_compatible"):
        raise EngineError(f"{manifest.name} was built by {wanted} {built_by}; here is {library.__version__}", remedy=AGAIN)
    if device is None:
        return
    sms = [int(sm) for sm in manifest.settings.get("sms", [])]
    sms = sms or [int(sm) for sm in (target.sm or manifest.settings.get("sm"),) if sm is not None]
    compatible = manifest.settings.get("hardware_compatibility", "none") == "ampere_plus" and device.sm >= 80
    if sms and device.sm not in sms and not compatible:
        remedy = f"Build it for this GPU: --target {f'rtx:sm{device.sm}' if target.kind == 'rtx' else 'tensorrt'}"
        named = ", ".join(f"sm{sm}" for sm in sms)
        raise EngineError(f"{manifest.name} was built for {named}; {device.name} is sm{device.sm}", remedy=remedy)
