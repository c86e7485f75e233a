"""The report's results, for the commands that show them."""

from tests.report.conftest import pictures, results  # noqa: F401  fixtures
