"""Orders: what can be known is known before the work, a failure ends its own order only."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from toolkit.errors import BudgetError, DataError, EngineError, RecipeError
from toolkit.orders import Order, Outcome, failure, fill, foresee, orders_of
from toolkit.recipe import Accept, Calibration, Recipe
from toolkit.types import Progress

ENGINES = Path(__file__).parent.parent / "engines"


def recipe(**changes: object) -> Recipe:
    return msgspec.structs.replace(Recipe.load(ENGINES / "fashion-resnet18-int8.toml"), **changes)  # type: ignore[arg-type]


def test_an_order_each_recipe_and_target(tmp_path: Path) -> None:
    found = orders_of([recipe(), recipe(name="other")], "cpu,rtx:sm89", tmp_path)
    assert [order.folder.name for order in found] == [
        "fashion-resnet18-int8", "fashion-resnet18-int8-rtx-sm89", "other", "other-rtx-sm89",
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="two engines would take the folder"):
        orders_of([recipe(), recipe()], None, tmp_path)
    with pytest.raises(RecipeError, match="gpu"):
        orders_of([recipe()], "gpu", tmp_path)


def test_every_fault_that_can_be_known_is_said_before_any_work(tmp_path: Path) -> None:
    base, gone = recipe(), str(tmp_path / "gone")
    classes, weights = (msgspec.structs.replace(base.reference, **{key: gone}) for key in ("classes", "weights"))
    wrong = {
        "images": (recipe(name="images", calibration=Calibration(data=gone)), "cpu", "does not exist"),
        "val": (recipe(name="val", accept=Accept(data=gone)), "cpu", "does not exist"),
        "ranges": (recipe(name="ranges", calibration=Calibration(ranges=gone)), "cpu", "there is no file"),
        "classes": (recipe(name="classes", reference=classes), "cpu", "class names"),
        "weights": (recipe(name="weights", reference=weights), "cpu", "there is no file"),
        "option": (recipe(name="option", build=msgspec.structs.replace(base.build, refit=True)), "cpu", "build.refit"),
    }
    if find_spec("tensorrt_rtx"):
        wrong["sm"] = (recipe(name="sm"), "rtx:sm12", "sm12")
        wrong["rtx"] = (recipe(name="rtx", build=msgspec.structs.replace(base.build, threads=2)), "rtx:sm89", "build.threads")
    orders = [order for one, target, _ in wrong.values() for order in orders_of([one], target, tmp_path)]

    def work(stage: str) -> Progress:
        raise AssertionError(f"work was begun: {stage}")

    outcomes = list(fill(orders, work))
    assert len(outcomes) == len(wrong)
    for (_, _, words), outcome in zip(wrong.values(), outcomes, strict=True):
        assert outcome.manifest is None and words in str(outcome.error), outcome
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_only_be_read_is_said_before_any_work(tmp_path: Path) -> None:
    """A real file system that is mounted so."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:

        def work(stage: str) -> Progress:
            raise AssertionError(f"work was begun: {stage}")

        with pytest.raises(EngineError, match=r"disk cannot be made or written: Read-only file system\. Choose another"):
            list(fill(orders_of([recipe()], None, disk), work))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_second_reference_that_is_none_is_said_before_the_first_is_built(tmp_path: Path) -> None:
    base = recipe()
    for name in ("w.safetensors", "m.onnx"):
        (tmp_path / name).write_bytes(b"no model at all")
    weights = msgspec.structs.replace(base.reference, weights=str(tmp_path / "w.safetensors"))
    onnx = Recipe.of(tmp_path / "m.onnx", name="onnx").reference
    bad = [recipe(name=name, reference=reference) for name, reference in (("one", weights), ("two", weights), ("onnx", onnx))]
    outcomes = fill(orders_of([base, *bad], None, tmp_path / "built"))
    first = [next(outcomes) for _ in range(3)]
    assert [outcome.order.recipe.name for outcome in first] == ["one", "two", "onnx"]
    assert all(outcome.error is not None and str(tmp_path) in str(outcome.error) for outcome in first)
    text = str(failure([*first, Outcome(first[0].order)]))
    assert text.startswith("3 of 4 engines were not built. one, two: ") and text.count("w.safetensors") == 1


def test_a_good_order_is_foreseen_as_nothing() -> None:
    (order,) = orders_of([recipe()], None, Path("nowhere"))
    assert foresee(order) is None


def test_one_error_speaks_for_all(tmp_path: Path) -> None:
    (order,) = orders_of([recipe()], None, tmp_path)
    refused, gone = Outcome(order, error=BudgetError("refused")), Outcome(order, error=DataError("gone"))
    assert failure([Outcome(Order(*order))]) is None
    assert failure([refused]) is refused.error
    assert isinstance(failure([refused, refused]), BudgetError)
    both = failure([refused, gone])
    assert both is not None and not isinstance(both, BudgetError) and "refused; " in str(both) and "gone" in str(both)
