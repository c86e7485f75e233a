"""Analysis: the powers that one pass measured -> a LayerLoss a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from toolkit.graph.work import layers as counted
from toolkit.why.blocks import PairedLayer
from toolkit.why.probe import Power, Powers
from toolkit.why.result import PARTS, LayerLoss, Worst

BROKEN = -120.0  # dB of what is not finite
WORST = 5  # channels and images told of each layer


def losses(
    plain: ir.Model,
    blocks: Sequence[PairedLayer],
    powers: Mapping[str, Powers],
    alone: Mapping[str, Power],
    signal: Power,
    times: Mapping[str, float],
    image: Callable[[int], str],
) -> tuple[LayerLoss, ...]:
    """`alone` and `signal` are powers in the logits, by image; `times` are shares by layer; `image` names an image."""
    work = {node.name: found.macs for node, found in counted(plain)}
    total = max(1, sum(work.values()))
    loss = sum(_sum(row) for row in alone.values())
    found = []
    for block in blocks:
        power, row = powers[block.name], alone.get(block.name)
        clean = power["signal"].sum()
        parts = {part: _sum(power[part]) for part in PARTS}
        found.append(
            LayerLoss(
                name=block.name,
                kind=block.kind,
                precision=block.precision,
                reads=block.reads,
                output=block.output,
                snr=decibels(clean, power["noise"].sum()),
                born=decibels(clean, power["born"].sum()),
                inherited=decibels(clean, power["inherited"].sum()),
                **{part: value / (sum(parts.values()) or 1.0) for part, value in parts.items()},
                share=_sum(row) / loss if row is not None and loss > 0 else 0.0,
                alone=None if row is None else decibels(signal.sum(), row.sum()),
                work=work.get(block.node.name, 0) / total,
                time=times.get(block.name),
                peak=power.peak,
                channels=_worst(power["signal"], power["noise"], axis=0, name=str),
                images=_worst(power["signal"], power["noise"], axis=1, name=image),
            )
        )
    return tuple(found)


def edges(blocks: Sequence[PairedLayer]) -> tuple[tuple[str, str], ...]:
    """(layer, layer that reads its result); the graph's input is no layer."""
    makers = {block.output: block.name for block in blocks}
    return tuple((makers[read], block.name) for block in blocks for read in block.reads if read in makers)


def times_of(blocks: Sequence[PairedLayer], profile: Mapping[str, float]) -> dict[str, float]:
    """Shares of the time by layer. ONNX Runtime calls what it fused after a node of the layer and adds to the name."""
    owners = {node.name: block.name for block in blocks for node in block.typed if node.name}
    owners |= {block.name: block.name for block in blocks}
    total = sum(profile.values()) or 1.0
    shares: dict[str, float] = {}
    for name, milliseconds in profile.items():
        fitting = [known for known in owners if name == known or name.startswith(f"{known}_")]
        if fitting:
            layer = owners[max(fitting, key=len)]
            shares[layer] = shares.get(layer, 0.0) + milliseconds / total
    return shares


def decibels(signal: float, noise: float) -> float | None:
    """10 log10(signal / noise); None where there is no noise, -120 where it is not finite."""
    if not np.isfinite(noise):
        return BROKEN
    if noise <= 0:
        return None
    return max(BROKEN, 10 * float(np.log10(signal / noise))) if signal > 0 else BROKEN


def worst(signal: Power, noise: Power, name: Callable[[int], str], most: int = WORST) -> tuple[Worst, ...]:
    """Of signal and noise powers [n], those with the lowest SNR."""
    noise = np.where(np.isfinite(noise), noise, np.finfo(np.float64).max / max(1, len(noise)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(noise > 0, signal / noise, np.inf)
    total = noise.sum()
    order = [index for index in np.argsort(ratio, kind="stable")[:most] if noise[index] > 0]
    return tuple(
        Worst(name=name(int(i)), snr=decibels(float(signal[i]), float(noise[i])), share=float(noise[i] / total)) for i in order
    )


def _worst(signal: Power, noise: Power, *, axis: int, name: Callable[[int], str]) -> tuple[Worst, ...]:
    """Channels by their share of the layer's noise, images by SNR: a channel that is nearly 0 has no SNR worth telling."""
    signal, noise = signal.sum(axis=axis), noise.sum(axis=axis)
    if axis == 1:
        return worst(signal, noise, name)
    noise = np.where(np.isfinite(noise), noise, np.finfo(np.float32).max)
    total = noise.sum()
    order = [int(i) for i in np.argsort(-noise, kind="stable")[:WORST] if noise[i] > 0]
    return tuple(
        Worst(name=name(i), snr=decibels(float(signal[i]), float(noise[i])), share=float(noise[i] / total)) for i in order
    )


def _sum(power: Power) -> float:
    """The sum; what is not finite counts as a noise above all others."""
    return float(np.where(np.isfinite(power), power, np.finfo(np.float32).max).sum())
