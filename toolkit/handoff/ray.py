"""`ray`: a folder that is a job: a script for `toolkit.ray.classify`, the packed engine, and what its nodes must install."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import toolkit
from toolkit.disk.files import make_folder, write_atomically
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError
from toolkit.handoff import extra_of

SCRIPT, NEEDS = "classify.py", "requirements.txt"
MARK = "# Written by resnet-deploy: toolkit handoff ray\n"


def to_ray(engine: Engine, folder: Path) -> Path:
    """Write the job of an engine into `folder`; gives the script's path. Raises EngineError: a folder that is not ours."""
    needs = folder / NEEDS
    if (folder / SCRIPT).exists() and not (needs.exists() and needs.read_text(errors="replace").startswith(MARK)):
        raise EngineError(f"{folder / SCRIPT} is not replaced: the toolkit did not write it", remedy="Use another folder with -o")
    make_folder(folder)
    packed = engine.pack(folder / f"{engine.name}.engine")
    write_atomically(needs, f"{MARK}resnet-deploy[{extra_of(engine.manifest)},ray]=={toolkit.__version__}\n".encode())
    text = (files("toolkit.handoff") / "inside" / "ray_job.py").read_text(encoding="utf-8")
    batch = max(profile.opt for profile in engine.manifest.profiles)
    text = text.replace("default=64", f"default={max(batch, 16)}")
    for key, value in (("name", engine.name), ("file", packed.name)):
        text = text.replace(f"{{{key}}}", value)
    write_atomically(folder / SCRIPT, text.encode())
    return folder / SCRIPT
