from __future__ import annotations

import numpy as np

from tests.graph.networks import fashion, fashion_graph, graph_of, pictures, run
from toolkit.graph.channels import measure
from toolkit.graph.edit import constant
from toolkit.graph.offsets import joined_branches, share_offsets
from toolkit.onnxfile import serialize


def test_opposite_offsets_go_and_the_function_stays() -> None:
    model = fashion("resnet18")
    model.layer2[0].bn2.bias.data += 50
    model.layer2[0].downsample[1].bias.data -= 50
    graph, images, batch = graph_of(model), [pictures(8, "train")], pictures(16)
    before = serialize(graph)
    shared = share_offsets(graph, measure(graph, images, joined_branches(graph)))
    assert serialize(graph) == before
    truth = run(graph, batch)
    assert np.abs(run(shared, batch) - truth).max() <= 1e-4 * np.abs(truth).max()  # 50 taken off an activation of 1, in float32
    branches = ["layer2.0.conv2", "layer2.0.downsample.0"]
    means = [measure(shared, images, branches)[name].mean for name in branches]
    np.testing.assert_allclose(means[0], means[1], atol=1e-4)
    biases = [constant(next(n for n in shared.graph if n.name == name).inputs[2]) for name in branches]
    assert all(np.abs(bias).max() < 10 for bias in biases)


def test_a_sum_with_an_identity_is_left_alone() -> None:
    clean = fashion_graph("resnet18")
    shared = share_offsets(clean, measure(clean, [pictures(4, "train")], joined_branches(clean)))
    changed = [
        a.name for a, b in zip(clean.graph, shared.graph, strict=True)
        if a.op_type == "Conv" and not np.array_equal(constant(a.inputs[2]), constant(b.inputs[2]))
    ]
    assert changed and all(name.startswith(("layer2.0.", "layer3.0.", "layer4.0.")) for name in changed)
