"""The gallery: every shared results file of `benchmarks/results/gallery/` as one page, by device.

    python benchmarks/gallery.py [-o gallery.html] [FOLDER]

A file comes from `toolkit bench ENGINE... --share FILE.json` and a pull request. Each is read as any results file is, so one that
is cut short, or of another version, is named and ends the run; and none may name a path, a recipe or an image.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.harness.share import shared
from toolkit.report.machines import gallery_of, machines
from toolkit.report.write import write_page

FOLDER = Path(__file__).parent / "results" / "gallery"


def main() -> int:
    """0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery.html"))
    given = parser.parse_args()
    try:
        files = gallery_of(given.folder)
        for name, results in files:
            if shared(results) != results:
                raise ToolkitError(
                    f"{name} tells more than a shared file may", remedy="Make it again: toolkit bench --share FILE.json"
                )
        write_page(given.output, machines(files))
    except ToolkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.output}: {len(files)} file{'s' * (len(files) != 1)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
