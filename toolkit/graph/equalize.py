"""Cross-layer equalization: one positive scale a channel, taken by all that write it and given back by all that read it.

ReLU, Add and pooling let a positive scale through, so the FP32 function stays. Tensors that these operators join form one set;
its channels have one scale. A set without Add lies between two layers (Nagel et al., 2019, arXiv:1906.04721); a set with Add is
a whole residual stream with every convolution that writes it and every one that reads it.

The weights of a writer have a scale an output channel, so what a writer takes costs nothing. What is at stake is the tensor's one
scale and, in each reader's row, the one scale that all input channels share. With a_c the channel's peak, e_c its mean square and
W a reader, the noise of row o after scaling by s_c is, up to the common factor 1/12,

    N_o = (max_c a_c s_c / 255)^2 * sum_c (W_oc / s_c)^2  +  (max_c |W_oc| / s_c / 127)^2 * sum_c e_c s_c^2

against the signal sum_c W_oc^2 e_c. s_c = 1 / a_c makes the first term smallest, s_c = max_o |W_oc| the second. Between them lies
s_c = (u_c ^ p) / a_c, where u_c is the channel's largest share in a row. The pass takes the p in 0 .. 1 with the least noise. All
of this is blind to the scales that the channels came with: however the weights were spread, the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from toolkit.graph.channels import Channels, Real, measure, noise
from toolkit.graph.edit import attribute, constant, finish, initializer, output_axis, weight_of
from toolkit.graph.offsets import joined_branches, share_offsets
from toolkit.types import Array, Float

Mode = Literal["auto", "none", "pairs", "streams", "activations"]
PEAK = 16.0  # what the largest channel of an equalized tensor reaches: far from both ends of FP16
POWERS = np.linspace(0, 1, 11)
POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
HOMOGENEOUS = ("Relu", "LeakyRelu", *POOLS, "Identity", "Dropout", "Flatten", "Reshape", "Add", "Sum")


class ChannelSet(NamedTuple):
    """Tensors that must share one scale a channel, who writes them, and who reads them."""

    channels: int
    tensors: tuple[str, ...]
    writers: tuple[ir.Node, ...]
    readers: tuple[ir.Node, ...]
    stream: bool


def equalize(model: ir.Model, mode: Mode, images: Iterable[Float] | None = None) -> ir.Model:
    """A copy of a BatchNorm-folded FP32 graph with its channels equalized; the function stays to 1e-5 of the largest logit.

    `streams` also shares the offsets of branches that an Add joins (`offsets.py`).

    `images`: float32 batches from the calibration set, of which the first 64 images count; without them unit noise tells how
    large each channel is.
    Raises GraphError, CalibrationError.
    """
    if mode == "none":
        return model.clone()
    return scaled(model, mode, evidence(model, mode, noise(model) if images is None else images))


def evidence(model: ir.Model, mode: Mode, images: Iterable[Float]) -> dict[str, Channels]:
    """What the channels of the first 64 images carry, at once for every mode but `none`, which needs nothing: outputs change what
    ONNX Runtime fuses, and so last bits, by which the scales of a mode must not depend on what else is tried."""
    if mode == "none":
        return {}
    read = {name for group in channel_sets(model) for name in _read_tensors(group)}
    return measure(model, images, sorted({*joined_branches(model), *read}))


def _sets(model: ir.Model, mode: Mode) -> list[ChannelSet]:
    return [] if mode == "none" else [group for group in channel_sets(model) if mode != "pairs" or not group.stream]


def scaled(model: ir.Model, mode: Mode, seen: Mapping[str, Channels]) -> ir.Model:
    """`equalize` by the `evidence` of the same graph. What offsets move no layer reads, so the rest stays so."""
    model = share_offsets(model, seen) if mode not in ("none", "pairs") else model.clone()
    sets = _sets(model, mode)
    if not sets:
        return model
    rows: dict[ir.Node, Real] = {}
    columns: dict[ir.Node, Real] = {}
    for group in sets:
        factor = factors(group, seen)
        rows.update(dict.fromkeys(group.writers, factor))
        columns.update(dict.fromkeys(group.readers, factor))
    for node in list(model.graph):
        if node in rows or node in columns:
            scale_layer(node, rows.get(node), columns.get(node))
    return finish(model)


def channel_sets(model: ir.Model) -> list[ChannelSet]:
    """Every set of tensors whose channels may be scaled, in graph order; one that reaches anything else is left out."""
    parent: dict[ir.Value, ir.Value] = {}

    def root(value: ir.Value) -> ir.Value:
        while parent.setdefault(value, value) is not value:
            value = parent[value]
        return value

    for node in model.graph:
        if _lets_through(node):
            for value in node.inputs[:1] if node.op_type == "Reshape" else node.inputs:
                if value is not None:
                    parent[root(value)] = root(node.outputs[0])
    groups: dict[ir.Value, list[ir.Value]] = {}
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs), *parent]
    for value in dict.fromkeys(values):
        groups.setdefault(root(value), []).append(value)
    return [found for members in groups.values() if (found := _channel_set(members)) is not None]


def _lets_through(node: ir.Node) -> bool:
    """Whether a positive scale of a channel passes from all inputs to the output, channel by channel."""
    if node.domain or node.op_type not in HOMOGENEOUS or len(node.outputs) != 1:
        return False
    if node.op_type == "Reshape":
        return _flattens(node)
    shapes = [value.shape for value in (*node.inputs, node.outputs[0]) if value is not None]
    if any(shape is None or len(shape) < 2 for shape in shapes):
        return False
    if node.op_type in ("Add", "Sum"):
        return all(shape == shapes[0] for shape in shapes)
    if node.op_type == "Flatten":
        return int(attribute(node, "axis", 1)) == 1
    return len(node.inputs) == 1


def _flattens(reshape: ir.Node) -> bool:
    """Whether it turns [N, C, H, W] into [N, C * H * W]."""
    before, after = (value.shape if value is not None else None for value in (reshape.inputs[0], reshape.outputs[0]))
    if before is None or after is None or len(after) != 2 or before[0] != after[0]:
        return False
    sizes = [size for size in before[1:] if isinstance(size, int)]
    return len(sizes) == len(before) - 1 and int(np.prod(sizes)) == after[1]


def _channel_set(members: list[ir.Value]) -> ChannelSet | None:
    writers: list[ir.Node] = []
    readers: list[ir.Node] = []
    stream = False
    for value in members:
        producer = value.producer()
        if producer is None or value.is_graph_output():
            return None
        if not _lets_through(producer):
            writers.append(producer)
        stream = stream or producer.op_type in ("Add", "Sum")
        for use in value.uses():
            if not _lets_through(use.node):
                if use.idx != 0:
                    return None
                readers.append(use.node)
    if not readers or any(not _writes(node) for node in writers) or any(not is_reader(node) for node in readers):
        return None
    counts = {_array(node).shape[output_axis(node)] for node in writers}
    channels = counts.pop()
    if counts or any(_inputs(node) % channels for node in readers) or len(set(readers)) != len(readers):
        return None
    return ChannelSet(channels, tuple(value.name or "" for value in members), tuple(writers), tuple(readers), stream)


def is_reader(node: ir.Node) -> bool:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or weight_of(node) is None or attribute(node, "transA", 0):
        return False
    return node.op_type == "Conv" or _array(node).ndim == 2


def _writes(node: ir.Node) -> bool:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if not is_reader(node) or node.op_type == "MatMul":
        return False
    known = constant(bias)
    return bias is None or (known is not None and known.size == _array(node).shape[output_axis(node)])


def _array(node: ir.Node) -> Array:
    array = constant(node.inputs[1])
    assert array is not None  # as `weight_of` has seen
    return array


def _by_input(node: ir.Node) -> Real:
    """The weight as [groups, outputs of the group, inputs of the group, taps], float64."""
    array = _array(node).astype(np.float64)
    if node.op_type != "Conv":
        array = array if output_axis(node) == 0 else array.T
    groups = int(attribute(node, "group", 1)) if node.op_type == "Conv" else 1
    return array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)


def _inputs(node: ir.Node) -> int:
    groups, _, inputs, _ = _by_input(node).shape
    return int(groups * inputs)


def _read_tensors(group: ChannelSet) -> list[str]:
    """The tensors that its readers read, each before a Flatten, where its channels are still apart."""
    found = []
    for node in group.readers:
        value = node.inputs[0]
        while value is not None and (producer := value.producer()) is not None and producer.op_type in ("Flatten", "Reshape"):
            value = producer.inputs[0]
        assert value is not None
        found.append(value.name or "")
    return found


def factors(group: ChannelSet, measured: Mapping[str, Channels]) -> Real:
    """The scale of each channel [C]: the one of the family above with the least noise, summed over the readers."""
    names = _read_tensors(group)
    readers = [_Reader.of(node, measured[name], group.channels) for node, name in zip(group.readers, names, strict=True)]
    peaks = np.stack([reader.peak for reader in readers])
    alive = (peaks > 0).all(axis=0)
    peak = np.where(alive, np.exp(np.log(np.where(alive, peaks, 1)).mean(axis=0)), 0)
    column = np.max([reader.column for reader in readers], axis=0)
    read = alive & (column > 0)
    if not read.any():
        return np.ones(group.channels)
    # A channel that is 0 on every image could be anything on the next: it is given the share of a middling one.
    typical = float(np.median((peak * column)[read]))
    peak = np.where(alive, peak, np.where(column > 0, typical / np.where(column > 0, column, 1), float(np.median(peak[read]))))
    share = peak * column / (peak * column).max()
    share = np.maximum(share, 2.0**-8)  # a channel that nobody reads must not lose all its bits
    candidates = [share**power / peak for power in POWERS]
    best = min(candidates, key=lambda s: sum(reader.noise(s) for reader in readers))
    return np.asarray(best * (PEAK / (peaks.max(axis=0) * best).max()))


class _Reader(NamedTuple):
    """A reader's weight by input channel, and what those channels carry."""

    square: Real  # [outputs, C]: the weights' squares, summed over taps; zero where a group does not read a channel
    largest: Real  # [outputs, C]: the largest weight's magnitude
    taps: Real  # [outputs, C]: how many weights are not 0: one that is 0 is exact
    peak: Real  # [C]
    power: Real  # [C]
    signal: Real  # [outputs]
    column: Real  # [C]: the channel's largest weight, as a share of its row's signal

    @classmethod
    def of(cls, node: ir.Node, channels: Channels, count: int) -> _Reader:
        weight = _by_input(node)
        square, largest = _by_channel((weight**2).sum(axis=3), count), _by_channel(np.abs(weight).max(axis=3), count)
        square, largest = square.sum(axis=2), largest.max(axis=2)
        taps = _by_channel((weight != 0).sum(axis=3), count).sum(axis=2)
        signal = square @ channels.power
        lively = signal > 0
        column = (largest[lively] / np.sqrt(signal[lively])[:, None]).max(axis=0) if lively.any() else np.zeros(count)
        return cls(square, largest, taps, channels.peak, channels.power, signal, column)

    def noise(self, scale: Real) -> float:
        """The mean over rows of noise / signal, without the factor 1/12 (see the module)."""
        step = (self.peak * scale).max() / 255
        steps = (self.largest / scale).max(axis=1) / 127
        total = step**2 * (self.square @ scale**-2) + steps**2 * (self.taps @ (self.power * scale**2))
        lively = self.signal > 0
        return float((total[lively] / self.signal[lively]).mean()) if lively.any() else 0.0


def _by_channel(values: Array, count: int) -> Real:
    """[groups, outputs of the group, inputs of the group] -> [outputs, `count` channels, inputs a channel]; 0 between groups."""
    groups, outputs, inputs = values.shape
    whole = np.zeros((groups, outputs, groups, inputs))
    for index, each in enumerate(values):
        whole[index, :, index] = each
    return whole.reshape(groups * outputs, count, -1)


def scale_layer(node: ir.Node, rows: Real | None, columns: Real | None) -> None:
    """Multiply a layer's output channels by `rows`, and divide its input channels by `columns`."""
    array = _array(node)
    weight = _by_input(node)
    groups, outputs, inputs, _ = weight.shape
    if columns is not None:
        factor = np.repeat(columns, groups * inputs // len(columns))
        weight = weight / factor.reshape(groups, 1, inputs, 1)
    if rows is not None:
        weight = weight * rows.reshape(groups, outputs, 1, 1)
        if len(node.inputs) > 2 and (bias := constant(node.inputs[2])) is not None:
            _set(node, 2, bias * rows.reshape(bias.shape))
    flat = weight.reshape(groups * outputs, inputs, -1)
    if node.op_type != "Conv" and output_axis(node) != 0:
        flat = flat[:, :, 0].T
    _set(node, 1, flat.reshape(array.shape))


def _set(node: ir.Node, index: int, array: Array) -> None:
    """Give the node its own float32 constant; where nobody else reads the old one, under the old name."""
    old = node.inputs[index]
    assert old is not None and node.graph is not None
    array = array.astype(np.float32)
    if old.is_initializer() and len(old.uses()) == 1:
        old.const_value = ir.tensor(array, name=old.name)
    else:
        node.replace_input_with(index, initializer(node.graph, old.name or f"{node.name}.{index}", array))
