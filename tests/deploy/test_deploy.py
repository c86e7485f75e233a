"""The files in deploy/: consistent with the command that they start, and held against linters and schemas where those are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")


def tool(name: str) -> str:
    """A linter of the `deploy` extra; skips where it is not installed."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: pip install 'resnet-deploy[deploy]'")
    return found


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def containers() -> list[tuple[str, Any, Any]]:
    """(file, container, the spec that it stands in) of each manifest."""
    found = []
    for name in ("kserve.yaml", "kserve-runtime.yaml"):
        for document in documents(name):
            spec = document["spec"].get("predictor", document["spec"])
            found += [(name, container, spec) for container in spec.get("containers", ())]
    return found


def instruction(dockerfile: Path, name: str) -> Any:
    (line,) = re.findall(rf"^{name} (.*)$", dockerfile.read_text(), re.M)
    return json.loads(line)


def serve_takes(arguments: list[str]) -> dict[str, Any]:
    """The values that `toolkit serve` reads off its arguments; raises where it has no such option."""
    from typer.main import get_command

    from toolkit.cli import main  # noqa: F401  registers the commands
    from toolkit.cli.app import app

    commands: Any = get_command(app)
    if "serve" not in commands.commands:
        pytest.skip("this toolkit has no `serve`")
    params: dict[str, Any] = commands.commands["serve"].make_context("serve", list(arguments)).params
    return params


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda p: p.name)
def test_the_image_starts_the_server_on_the_port_that_it_exposes(file: Path) -> None:
    assert instruction(file, "ENTRYPOINT") == ["toolkit", "serve"]
    taken = serve_takes(instruction(file, "CMD"))
    (port,) = re.findall(r"^EXPOSE (\d+)$", file.read_text(), re.M)
    assert (taken["host"], taken["port"]) == ("0.0.0.0", int(port))
    assert list(map(str, taken["engines"])) == ["/engines/model"]
    assert f"127.0.0.1:{port}/v2/health/ready" in file.read_text()


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda p: p.name)
def test_the_image_has_extras_that_exist_and_none_that_brings_torch(file: Path) -> None:
    import tomllib

    extras = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (default,) = re.findall(r"^ARG EXTRA=(\w+)$", file.read_text(), re.M)
    assert '[${EXTRA},serve]"' in file.read_text()
    assert default in extras
    if "serve" not in extras:
        pytest.skip("this toolkit has no `serve` extra")
    for name in (default, "serve"):
        assert not [one for one in extras[name] if re.match(r"(torch|onnx|onnxscript|onnx-ir)\b(?!r)", one)]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda p: p.name)
def test_the_engine_is_looked_at_by_the_user_that_serves_it(file: Path) -> None:
    """As root a file of mode 0600 is read at the build, and the server then cannot open it."""
    text = file.read_text()
    assert text.index("\nUSER 10001:10001\n") < text.index("\nRUN toolkit inspect /engines/model")


def test_what_the_image_copies_is_in_its_context() -> None:
    kept = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    assert {"*", "!dist/", "!constraints.txt", "!engines/"} <= set(kept)


@pytest.mark.parametrize(("file", "container", "spec"), containers(), ids=lambda one: one if isinstance(one, str) else "")
def test_a_manifest_starts_the_server_where_it_is_probed(file: str, container: Any, spec: Any) -> None:
    taken = serve_takes(container["args"])
    (port,) = [one["containerPort"] for one in container["ports"]]
    assert (taken["host"], taken["port"]) == ("0.0.0.0", port)
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": port}
    if "terminationGracePeriodSeconds" in spec and "drain" in taken:
        assert spec["terminationGracePeriodSeconds"] > taken["drain"]
    assert container["securityContext"]["runAsUser"] == 10001 and "USER 10001:10001" in DOCKERFILES[0].read_text()


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda p: p.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    done = subprocess.run([tool("hadolint"), "--no-color", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_compose_file_has_the_specifications_schema() -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("file", "container", "spec"), containers(), ids=lambda one: one if isinstance(one, str) else "")
def test_a_container_is_one_that_kubernetes_takes(file: str, container: Any, spec: Any) -> None:
    """KServe's predictor is a pod: the same fields in a Pod, against Kubernetes' own schema, unknown fields refused."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: [deploy]")
    kept = {key: spec[key] for key in ("terminationGracePeriodSeconds", "volumes") if key in spec}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container], **kept}}
    kubernetes_validate.validate(pod, "1.31", strict=True)


def closed(schema: Any) -> Any:
    """The same schema, with unknown fields refused where it does not keep them."""
    if isinstance(schema, dict):
        free = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
        more = {} if free or "properties" not in schema else {"additionalProperties": False}
        return {**{key: closed(value) for key, value in schema.items()}, **more}
    return [closed(one) for one in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("name", ["kserve.yaml", "kserve-runtime.yaml"])
def test_a_manifest_is_one_that_kserve_takes(name: str) -> None:
    """Against KServe's own resource definitions, from its repository's config/crd/full."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    folder = os.environ.get("KSERVE_CRDS")
    if not folder:
        pytest.skip("KSERVE_CRDS names no folder with KServe's custom resource definitions")
    schemas = {}
    for path in Path(folder).glob("*.yaml"):
        crd = yaml.safe_load(path.read_text())
        for version in crd["spec"]["versions"]:
            key = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
            schemas[key] = version["schema"]["openAPIV3Schema"]
    for document in documents(name):
        schema = closed(schemas[document["apiVersion"], document["kind"]])
        schema["properties"]["metadata"] = {"type": "object"}
        jsonschema.Draft7Validator(schema).validate(document)
