"""Classify every picture of a source with {name}, on the cluster that Ray runs on. Started again, it does what is missing.

    python classify.py SOURCE -o ANSWERS               # Ray on this machine, or the cluster of RAY_ADDRESS
    ray job submit --working-dir . -- python classify.py SOURCE -o ANSWERS

SOURCE is a folder of pictures that every node sees, Parquet files, or WebDataset shards (.tar); ANSWERS a folder that the
process which runs this script sees. Every node needs: pip install -r requirements.txt
"""

import argparse
import sys
from pathlib import Path

import toolkit
import toolkit.ray

ENGINE = Path(__file__).parent / "{file}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--key", default="key", help="Parquet: the column of unique names")
    parser.add_argument("--picture", default="picture", help="Parquet: the column of encoded files, or of their paths")
    parser.add_argument("--actors", type=int, help="runners; default: as many as there is room for")
    parser.add_argument("--cpus", type=float, help="cores of each runner; default: the engine's threads")
    parser.add_argument("--gpus", type=float, help="of each runner; 0.25 lets four share one")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--top", type=int, default=5)
    options = vars(parser.parse_args())
    source, output = options.pop("source"), options.pop("output")
    print(toolkit.ray.classify(source[0] if len(source) == 1 else source, ENGINE, output, **options))


if __name__ == "__main__":
    try:
        main()
    except toolkit.ToolkitError as error:
        sys.exit(f"error: {error}")
