"""A folder of pictures classified on every core that Ray has; run again, it does what is missing. Needs the ray extra.

python examples/ray_folder.py engines/built/fashion-resnet18-int8 pictures answers
"""

import sys
from pathlib import Path

import toolkit


def main(engine: str, pictures: str, answers: str) -> None:
    print(toolkit.ray.classify(pictures, engine, answers))
    from pyarrow import parquet

    table = parquet.read_table(Path(answers))
    for row in table.sort_by("key").slice(0, 10).to_pylist():
        print(row["key"], row["error"] or f"{row['label']} {row['probability']:.1%}", sep="  ")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
