"""From images to ranges: what each tensor of a graph holds, and the thresholds that every method draws from it."""

from toolkit.calibration.cache import collect_cached, find_ranges
from toolkit.calibration.collect import Tally, collect, origin_of
from toolkit.calibration.ranges import Origin, Ranges, TensorRange

__all__ = ["Origin", "Ranges", "Tally", "TensorRange", "collect", "collect_cached", "find_ranges", "origin_of"]
