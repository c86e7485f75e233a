"""Bill of materials: an engine as a CycloneDX machine-learning model, for those who keep lists of all that they run."""

from __future__ import annotations

from toolkit.disk.files import sha256_bytes
from toolkit.engine.engine import Engine
from toolkit.errors import MissingExtra
from toolkit.manifest import Manifest

try:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL
except ImportError:
    raise MissingExtra("cyclonedx-python-lib", "bom") from None


def bill_of_materials(engine: Engine) -> str:
    """CycloneDX 1.6 as JSON: the model and each of its files with a SHA-256, what it was made of, the libraries that made it."""
    manifest = engine.manifest
    model = Component(
        name=manifest.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=manifest.seal,
        description=f"{manifest.precision} for {manifest.target}: {manifest.device}",
        hashes=[_hash(manifest.hashes["file"])] if "file" in manifest.hashes else [],
        properties=[Property(name=f"resnet-deploy:{key}", value=value) for key, value in _facts(manifest)],
        components=[
            Component(name=name, type=ComponentType.FILE, hashes=[_hash(sha256_bytes(data))])
            for name, data in sorted(engine.contents.items())
        ],
    )
    bom = Bom(components=[*_libraries(manifest), *_sources(manifest)])
    bom.metadata.component = model
    bom.register_dependency(model, bom.components)
    text: str = JsonV1Dot6(bom).output_as_string(indent=1)
    return text


def _libraries(manifest: Manifest) -> list[Component]:
    names = {"toolkit": "resnet-deploy"}
    found = []
    for name, version in sorted(manifest.versions.items()):
        package = names.get(name, name.replace("_", "-"))
        purl = PackageURL("pypi", name=package, version=version)
        ref = f"library:{package}"
        found.append(Component(name=package, type=ComponentType.LIBRARY, version=version, purl=purl, bom_ref=ref))
    return found


def _sources(manifest: Manifest) -> list[Component]:
    """The weights and the calibration images, by their hashes: an engine names no place of theirs."""
    words = {"weights": "the weights of the reference", "calibration": "the images that INT8 was calibrated on"}
    return [
        Component(
            name=key, type=ComponentType.DATA, description=words[key], hashes=[_hash(manifest.hashes[key])], bom_ref=f"data:{key}"
        )
        for key in words
        if key in manifest.hashes
    ]


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    return [("target", manifest.target), ("precision", manifest.precision), *(("note", note) for note in manifest.notes)]


def _hash(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
