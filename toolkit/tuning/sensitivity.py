"""Sensitivity: what each part of a network does to the logits when it alone is INT8, and when it alone is not.

Each part (`parts.py`) takes two evaluations: 36 for a ResNet-50.
"""

from __future__ import annotations

from toolkit.graph.work import layers
from toolkit.tuning.parts import Unit
from toolkit.tuning.trial import Sensitivity, Trial
from toolkit.tuning.workbench import Workbench, vary


def sensitivity(bench: Workbench, base: Trial, parts: list[Unit]) -> list[Sensitivity]:
    """Two evaluations a unit, on the calibration subset; fewer units where the bench has fewer evaluations left.

    One part alone has nothing to be compared with: the answer is empty.
    """
    work = {node.name: layer.macs for node, layer in layers(bench.fp32())}
    total = sum(work.values())
    progress = bench.stage(f"sensitivity of {len(parts)} parts")
    found = []
    for index, part in enumerate(parts):
        if bench.left < 2 or len(parts) < 2:
            break
        others = tuple(key for other in parts if other is not part for key in other.keep)
        kept = base.recipe.precision.keep
        alone = bench.trial(f"{part.name} alone", vary(base.recipe, keep=others))
        left_out = bench.trial(f"all but {part.name}", vary(base.recipe, keep=(*kept, *part.keep)))
        share = sum(work.get(node.name, 0) for node in part.nodes) / max(1, total)
        found.append(Sensitivity(unit=part.name, keep=part.keep, alone=alone.snr, left_out=left_out.snr, share=share))
        progress(index + 1, len(parts))
    return found
