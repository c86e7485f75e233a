"""What a build lays beside the compiled file, so that the engine explains itself and can be judged anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import onnx_ir as ir

from toolkit import cpu
from toolkit.calibration import Ranges
from toolkit.disk.files import write_atomically
from toolkit.engine import answers, layout
from toolkit.engine.judge import Proof
from toolkit.harness.verdict import Verdict
from toolkit.images.dataset import Images
from toolkit.onnxfile import serialize
from toolkit.types import ON_CPU, Finding, Float, Target


def explain(draft: Path, file: str, graph: ir.Model, ranges: Ranges | None, findings: Sequence[Finding]) -> None:
    """The typed graph where `file` is not that, the ranges, the operators and what lint found."""
    if file != layout.MODEL:
        write_atomically(draft / layout.GRAPH, serialize(graph))
    if ranges is not None:
        ranges.write(draft / layout.RANGES)
    path = draft / layout.LAYERS
    told = msgspec.json.decode(path.read_bytes()) if path.exists() else {"source": "graph"}
    operators = dict(Counter(node.op_type for node in graph.graph).most_common())
    told |= {"operators": operators, "findings": msgspec.to_builtins(findings)}
    write_atomically(path, msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")


def keep_answers(draft: Path, images: Images | None, truth: Float | None) -> None:
    """The reference's answers float32 [n, classes] to the images of `[accept]`, where there are any."""
    if images is not None and truth is not None:
        write_atomically(draft / layout.ANSWERS, answers.encode(truth, images.digests))


def keep_proof(draft: Path, target: Target, verdict: Verdict | None) -> None:
    """The verdict of the build, and whether it was measured or predicted."""
    if verdict is not None:
        how = "measured" if target.kind in ON_CPU else f"predicted: built for {target}; ONNX Runtime ran the graph on the CPU"
        proof = Proof(verdict=verdict, how=how, device=cpu.name())
        write_atomically(draft / layout.VERDICT, msgspec.json.encode(proof) + b"\n")
