"""The trip of a recipe: reference -> graph -> ranges -> typed graph -> compiled file -> verdict -> engine folder."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import onnx_ir as ir

from toolkit.backends import backend
from toolkit.calibration import Ranges
from toolkit.calibration.fingerprint import Fingerprint
from toolkit.disk.files import require_place, sha256, write_atomically
from toolkit.disk.folders import new_folder, settled
from toolkit.engine import locations
from toolkit.engine.engine import Engine
from toolkit.engine.explain import explain, keep_answers, keep_proof
from toolkit.engine.identity import identity, metadata_of, precision_of
from toolkit.engine.place import other_model, refuse_other
from toolkit.errors import BudgetError, MeasurementError, UndecidedError
from toolkit.graph.finite import first_broken
from toolkit.graph.fp8 import caveat
from toolkit.graph.lint import finding_lines, lint
from toolkit.graph.magnitude import magnitudes
from toolkit.graph.pixels import how_taken
from toolkit.graph.qdq import Scheme, scheme_of
from toolkit.graph.rounding import holds_half
from toolkit.graph.run import predicting_runner
from toolkit.graph.variance import island_lines
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.verdict import Verdict
from toolkit.images.dataset import Images, class_names, open_data
from toolkit.images.synthetic import synthetic
from toolkit.manifest import Manifest
from toolkit.onnxfile import serialize
from toolkit.recipe import Recipe
from toolkit.reference.baseline import baseline_of
from toolkit.reference.check import BATCHES, Agreement, check
from toolkit.reference.names import called_by_folders, refuse_unfit, said
from toolkit.reference.normal import fit_normalization
from toolkit.reference.source import Source, open_source
from toolkit.reference.standing import Standing, standing_of
from toolkit.refit import can_refit, exchanged, told
from toolkit.runtime.runner import Runner
from toolkit.settle import hold_back, roundings_on, settle
from toolkit.trip import Trip as Trip
from toolkit.trip import calibration_images as calibration_images
from toolkit.trip import for_cpus, unforeseen
from toolkit.trip import foreseen as foreseen
from toolkit.trip import typed as typed
from toolkit.types import ON_CPU, Compiled, Stage, Target, quiet

Numerics = tuple[Fingerprint, Scheme, bool]  # what was judged, and as it is rounded: by the scheme's library, in half precision
PEAK_IMAGES = 32


class Exported(NamedTuple):
    """What `export` wrote; how well the FP32 graph agrees with the reference, and this one, where images can tell; notes."""

    found: str
    agreement: Agreement
    verdict: Verdict | None
    notes: tuple[str, ...]


def export(recipe: Recipe, path: Path, stage: Stage = quiet, *, target: Target | None = None) -> Exported:
    """Write the typed graph for `target` (absent: the recipe's own) to `path`, with what an app needs beside it as metadata."""
    require_place(path)
    target = target or Target.parse_many(recipe.build.target)[0]
    trip = prepare(msgspec.structs.replace(recipe, build=msgspec.structs.replace(recipe.build, target=str(target))), stage)
    graph = typed(trip, target)
    graph.metadata_props.update(metadata_of(recipe, target, trip.source.reference.manifest))
    write_atomically(path, serialize(graph))
    found = f"{precision_of(recipe)}, {len(graph.graph)} nodes"
    notes = (*trip.recipe.remarks, *taken_by(recipe, graph), *trip.remarks, *unforeseen(trip), *caveat(graph))
    return Exported(found, trip.agreement, compare(trip, graph, target, stage), notes)


def ranges_of(recipe: Recipe, stage: Stage = quiet) -> Ranges:
    """The ranges of a recipe, whether or not it asks for INT8."""
    precision = recipe.precision if recipe.precision.fp8 else msgspec.structs.replace(recipe.precision, int8=True)
    trip = prepare(msgspec.structs.replace(recipe, precision=precision), stage, proof=False)
    assert trip.ranges is not None
    return trip.ranges


def prepare(recipe: Recipe, stage: Stage = quiet, *, proof: bool = True, like: Trip | None = None) -> Trip:
    """What every target shares: open the reference, export, check, equalize, calibrate.

    `like` is the trip of another recipe; where the reference and the images are the same, what it holds is taken over.
    """
    recipe, normal = fit_normalization(recipe)
    foreseeing = recipe.precision.compute == "fp16" and recipe.calibration_data is not None
    held = hold_back(recipe) if recipe.precision.quantized or foreseeing else None  # first: a fault of theirs ends it now
    judged = proof_images(recipe) or (held.judging if held is not None else None)
    if like is not None and same_start(recipe, like.recipe):
        source, agreement, baseline = like.source, like.agreement, like.baseline
        truth = like.truth if recipe.accept.data is not None else None
    else:
        source, truth, baseline = open_source(recipe, progress=stage("reference and export")), None, None
        if judged is not None and recipe.accept.data is not None:
            refuse_unfit(source.reference.manifest, judged)
        agreement = check(source, judged or check_images(recipe))
    if judged is not None and proof and truth is None:
        truth = answers_of(source.reference, judged, progress=stage("reference answers"))
    labeled = (judged, truth) if recipe.accept.data is not None else (None, None)
    if baseline is None or like is None or truth is not like.truth:
        baseline = baseline_of(source.reference, recipe, *labeled)
    graph, ranges, reasons, roundings = source.graph, None, tuple[str, ...](), roundings_on(recipe, None)
    if held is not None and recipe.precision.quantized:
        target = Target.parse_many(recipe.build.target)[0]
        recipe, graph, ranges, roundings, reasons = settle(recipe, graph, held, target, stage)
    large = peaks(graph, held.ranging) if held is not None and held.ranging is not None and foreseeing else {}
    own = standing_of(source, recipe.reference, *labeled)
    source, named = _named(source, recipe, labeled[0], own)
    heard = [normal, reasons, source.reference.manifest.notes, agreement.remarks, named]
    heard += [images.remarks for images in (judged, *(held or ())) if images is not None]
    remarks = tuple(dict.fromkeys(remark for some in heard for remark in some))
    return Trip(recipe, source, agreement, judged, truth, baseline, graph, ranges, large, roundings, remarks, own)


def _named(source: Source, recipe: Recipe, images: Images | None, standing: Standing) -> tuple[Source, tuple[str, ...]]:
    """The reference with the names of the class folders, where the recipe names no classes and the answers bear them out."""
    manifest = source.reference.manifest
    names = None if recipe.reference.classes or not standing.trusted else called_by_folders(manifest, images)
    if names is None or images is None or source.reference.executor is None:
        return source, ()
    named = Runner(msgspec.structs.replace(manifest, classes=names), source.reference.executor)
    return source._replace(reference=named), (said(names, images),)


def peaks(graph: ir.Model, images: Images) -> dict[str, float]:
    """How large each tensor becomes on a few images, to foresee what overflows FP16."""
    return magnitudes(graph, islice(images.batches(1), PEAK_IMAGES))


def build(
    trip: Trip,
    target: Target,
    folder: Path,
    stage: Stage = quiet,
    proofs: dict[Numerics, Verdict | None] | None = None,
    sign_key: Path | None = None,
    refit: Engine | None = None,
) -> Manifest:
    """Type, compile and judge, then put the engine where `folder` is; whatever stood there stays until this one is whole.

    Raises BudgetError where it is refused. For a target that cannot run here the verdict is a prediction: ONNX Runtime
    runs the same graph that the target was given, rounded as the target rounds. `proofs` holds, and is given, the verdict on each
    typed graph and rounding: targets that share both share the verdict. An engine to `refit` takes the new weights (`refit.py`).
    """
    proofs = {} if proofs is None else proofs
    recipe, graph, scheme = trip.recipe, typed(trip, target), scheme_of(target)
    numerics = Fingerprint.of(graph), scheme, target.kind not in ON_CPU and holds_half(graph)
    was = other_model(settled(folder), recipe, lambda: trip.source.reference.manifest.hashes["weights"])
    replaced = () if was is None else (f"it took the place of the engine of another model, {Path(was).name[:80]}",)
    with new_folder(folder, refuse_other) as draft:
        compiled = for_cpus(_compiled(recipe, graph, target, draft, stage, refit), graph, target)
        findings = lint(graph, scheme, recipe.precision.keep)
        ranges = trip.ranges if recipe.precision.quantized else None
        remarks = (*recipe.remarks, *replaced, *taken_by(recipe, graph), *trip.remarks)
        remarks = (*remarks, *(ranges.remarks if ranges is not None else ()))
        found = (*island_lines(foreseen(trip)), *finding_lines(findings), *unforeseen(trip))
        compiled = msgspec.structs.replace(compiled, notes=(*compiled.notes, *remarks, *found))
        if numerics not in proofs:
            proofs[numerics] = _proved(trip, graph, target, folder, stage)
        manifest = identity(recipe, target, graph, compiled, trip.source.reference.manifest, ranges, proofs[numerics])
        explain(draft, compiled.file, graph, ranges, findings)
        keep_answers(draft, proof_images(recipe), trip.truth)
        keep_proof(draft, target, proofs[numerics])
        hashes = {**manifest.hashes, "file": sha256(draft / compiled.file)}
        notes = tuple(locations.placeless(note, recipe) for note in (*manifest.notes, trip.standing.text))
        manifest = msgspec.structs.replace(manifest, baseline=trip.baseline, hashes=hashes, notes=notes).write(draft)
        _sign(draft, sign_key)
    locations.remember(manifest.seal, recipe)
    return manifest


def _compiled(recipe: Recipe, graph: ir.Model, target: Target, draft: Path, stage: Stage, refit: Engine | None) -> Compiled:
    """What the target's library makes of the graph; of new weights and an engine to `refit`, by exchanging them in it."""
    module = backend(target)
    if refit is None:
        stage(f"compile {recipe.name} for {target}")
        return cast(Compiled, module.compile(graph, recipe.build, target, draft))
    changed = exchanged(refit, graph)
    stage(f"refit {refit.name} with the weights of {recipe.name}")
    if can_refit(target):
        made: Compiled = module.refit(graph, changed, refit.contents, refit.manifest, recipe.build, draft)
    else:
        made = module.compile(graph, recipe.build, target, draft)
    return msgspec.structs.replace(made, notes=(*made.notes, told(refit, graph, changed, target)))


def _sign(draft: Path, key: Path | None) -> None:
    if key is not None:
        from toolkit.engine.signing import sign

        sign(draft, key)


def _proved(trip: Trip, graph: ir.Model, target: Target, folder: Path, stage: Stage) -> Verdict | None:
    """As `prove`; a refusal also says that an earlier engine is still where this one would have been."""
    try:
        return prove(trip, graph, target, stage)
    except (BudgetError, UndecidedError) as error:
        if not (settled(folder) / "manifest.json").exists():
            raise
        raise type(error)(f"{error.what}; {folder} still holds the engine that was built before", remedy=error.remedy) from None


def prove(trip: Trip, graph: ir.Model, target: Target, stage: Stage = quiet) -> Verdict | None:
    """Hold the typed graph to the recipe's `[accept]`; None where there are no images. Raises BudgetError, UndecidedError."""
    verdict, name = compare(trip, graph, target, stage), trip.recipe.name
    if verdict is None or verdict.accepted:
        return verdict
    if verdict.undecided:
        raise UndecidedError(f"{name} is not accepted: {verdict.text}", remedy=verdict.remedy)
    best = next((remark for remark in trip.remarks if remark.startswith("auto: SNR of the logits")), None)
    reached = f"; the best of the settings compared: {best.removeprefix('auto: ')}" if best is not None else ""
    first = "" if trip.recipe.accept.data is not None else ", once `accept.data` names images"
    remedy = f"Run: toolkit tune RECIPE{first}; or build with --no-proof, and ask toolkit why ENGINE{reached}"
    raise BudgetError(f"{name} is refused: {verdict.text}", remedy=remedy)


def compare(trip: Trip, graph: ir.Model, target: Target, stage: Stage = quiet) -> Verdict | None:
    """The verdict on the typed graph, rounded as `target` rounds, on the trip's images; None without any, or if none is wanted.

    Calibration images that were held back count as unlabeled: their folders need not be the model's classes.
    """
    images, accept, name = trip.judged, trip.recipe.accept, trip.recipe.name
    if images is None or trip.truth is None:
        return None
    images = images.having(trip.recipe.preprocess.inside)
    progress = stage(f"judge {name} on {images.count} images")
    try:
        answers = answers_of(predicting_runner(graph, target), images, name=name, progress=progress)
    except MeasurementError as error:
        raise _broken(graph, images, name) or error from error
    reference, held_back = trip.source.reference.manifest, accept.data is None
    verdict = compare_accuracy(
        trip.truth, answers, None if held_back else images.labels, accept,
        classes=reference.classes, name=name, meaning=reference.meaning,
    )  # fmt: skip
    return msgspec.structs.replace(verdict, held_back=held_back)


def taken_by(recipe: Recipe, graph: ir.Model) -> tuple[str, ...]:
    """A note on what the graph does with pixels, where it takes them."""
    return (how_taken(graph),) if recipe.preprocess.inside else ()


def _broken(graph: ir.Model, images: Images, name: str) -> BudgetError | None:
    """The layer whose answers are not finite in the typed graph, as they are in FP32; None where it cannot be told."""
    for index, image in enumerate(images.batches(1)):
        node = first_broken(graph, image)
        if node is not None:
            what = f"{name}: '{node.name}' ({node.op_type}) answers NaN or infinity in the typed graph for {images.name(index)}"
            return BudgetError(what, remedy=f'Leave it, or what it reads, out: keep = ["{node.name}"] in [precision]')
    return None


def same_start(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes share the reference, the preprocessing and the images of the verdict."""
    return (one.reference, one.preprocess.outside, one.accept.data, one.accept.images) == (
        other.reference,
        other.preprocess.outside,
        other.accept.data,
        other.accept.images,
    )


def proof_images(recipe: Recipe) -> Images | None:
    """The images of `[accept]` as the reference takes them; None where it names none. Raises DataError."""
    accept = recipe.accept
    classes = class_names(recipe)
    return None if accept.data is None else open_data(accept.data, recipe.preprocess.outside, accept.images, classes=classes)


def check_images(recipe: Recipe) -> Images:
    """What an export is checked on where no accuracy is judged: the images of `[calibration]`, else seeded synthetic ones."""
    count = sum(BATCHES)
    return synthetic(recipe.preprocess.outside, count) if recipe.calibration_data is None else calibration_images(recipe, count)
