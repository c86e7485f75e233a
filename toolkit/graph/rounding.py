"""FP16 or BF16 graph -> an FP32 graph that rounds where the half-precision one does: what a GPU answers, on any CPU.

ONNX Runtime's CPU has few half-precision kernels. It computes such operators in FP32 and drops the casts between them, so a
value that overflows or vanishes in FP16 survives there. In the graph made here

1. every half-precision tensor is float32 and passes through a Cast to its type and back: rounded to nearest even, infinite
   beyond the largest finite value, subnormal below the smallest normal one;
2. constants are the float32 values of the half-precision ones;
3. an operator computes on float32, sums included, and its result is rounded once: what tensor cores with FP32 accumulators do,
   and what the ONNX operators' definitions say to within the order of a sum;
4. operators that only select or move values (`EXACT`) add no rounding, and one that stands before such an operator is rounded
   behind it: max and ReLU commute with a monotone rounding.

Tensors keep their names; what is not yet rounded is called `NAME.unrounded`.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import finish, initializer, make, sole_consumer

FLOAT = functools.partial(ir.TensorType, ir.DataType.FLOAT)  # one each: a clone shares type objects, so none is changed in place
HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# Results of these are among their operands' values, up to the sign.
MONOTONE = ("Relu", "MaxPool", "GlobalMaxPool")
EXACT = (
    *MONOTONE, "Abs", "Concat", "Expand", "Flatten", "Gather", "Identity", "Max", "Min", "Neg", "Reshape", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
EPILOGUE = ("Add", "Mul", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "BatchNormalization")
# ONNX Runtime's fusions that look through a Cast, and would leave out the roundings inside.
UNROUNDING = ("LayerNormFusion", "SimplifiedLayerNormFusion")
# And one that rounds the biases of quantized layers to int32, as ONNX Runtime's kernels take them: TensorRT keeps them as typed.
AS_TYPED = (*UNROUNDING, "WeightBiasQuantization")


def holds_half(model: ir.Model) -> bool:
    """Whether any tensor of the graph is float16 or bfloat16."""
    return any(output.dtype in HALF for node in model.graph for output in node.outputs)


def as_rounded(model: ir.Model, *, epilogues: bool = False) -> ir.Model:
    """The FP32 graph that answers as `model`, a typed graph with known dtypes, does where half precision is real.

    With `epilogues`, what a layer hands to the operators that a backend may fuse behind it is not rounded: one rounding a kernel.
    """
    model = model.clone()
    graph = model.graph
    kinds = {output: output.dtype for node in graph for output in node.outputs if output.dtype in HALF}
    _widen_constants(graph)
    pending: set[ir.Value] = set()  # not yet rounded: the operator behind them does it
    for node in list(graph):
        _widen_attributes(node)
        for output in node.outputs:
            kind = kinds.get(output)
            if kind is None:
                continue
            reader = sole_consumer(output)
            if node.op_type == "Cast":
                _widen(graph, node, output, output.name or node.name or "")
            elif _is_exact(node, pending) or (epilogues and _is_fused(node, reader)):
                output.type = FLOAT()
            elif reader is not None and reader.op_type in MONOTONE and not reader.domain:
                output.type = FLOAT()
                pending.add(output)
            else:
                _round(graph, node, output, kind)
    return finish(model)


def _is_exact(node: ir.Node, pending: set[ir.Value]) -> bool:
    return node.op_type in EXACT and not node.domain and pending.isdisjoint(node.inputs)


def _is_fused(node: ir.Node, reader: ir.Node | None) -> bool:
    return node.op_type in LAYERS and reader is not None and reader.op_type in EPILOGUE and not reader.domain


def _widen_constants(graph: ir.Graph) -> None:
    for value in list(graph.initializers.values()):
        if value.dtype in HALF and value.const_value is not None:
            wide = initializer(graph, f"{value.name}.wide", value.const_value.numpy().astype(np.float32))
            value.replace_all_uses_with(wide)


def _widen_attributes(node: ir.Node) -> None:
    """Constant and ConstantOfShape hold their value's type, others name it."""
    value = node.attributes.get("value")
    if node.op_type in ("Constant", "ConstantOfShape") and value is not None and value.as_tensor().dtype in HALF:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(value.as_tensor().numpy().astype(np.float32)))
    for name in ("dtype", "output_dtype"):
        kind = node.attributes.get(name)
        if kind is not None and kind.as_int() in [int(half) for half in HALF]:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))


def _widen(graph: ir.Graph, node: ir.Node, output: ir.Value, name: str) -> None:
    """Put a Cast to float32 behind `node`, whose half-precision `output` it takes; what it gives is called `name`."""
    output.name = f"{name}.half"
    wide = make("Cast", [output], f"{name}.widen", output=name, to=int(ir.DataType.FLOAT))
    wide.outputs[0].type, wide.outputs[0].shape = FLOAT(), output.shape
    output.replace_all_uses_with(wide.outputs[0], replace_graph_outputs=True)
    wide.replace_input_with(0, output)
    graph.insert_after(node, wide)


def _round(graph: ir.Graph, node: ir.Node, output: ir.Value, kind: ir.DataType) -> None:
    """Round `output`, which `node` now makes in float32, to `kind` and back; the rounded value has the old name."""
    name = output.name or node.name or ""
    output.name, output.type = f"{name}.unrounded", FLOAT()
    narrow = make("Cast", [output], f"{name}.round", output=f"{name}.half", to=int(kind))
    narrow.outputs[0].type, narrow.outputs[0].shape = ir.TensorType(kind), output.shape
    output.replace_all_uses_with(narrow.outputs[0], replace_graph_outputs=True)
    narrow.replace_input_with(0, output)
    graph.insert_after(node, narrow)
    _widen(graph, narrow, narrow.outputs[0], name)
