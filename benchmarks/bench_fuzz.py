"""Corrupted files for every reader: number of rejected files, and maximum CPU time and memory of one file."""

import argparse
import dataclasses
import json
import sys
import tempfile
import warnings
from pathlib import Path

from support import RESULTS, ForeignLoad, write

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.fuzz import READERS, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="files per reader")
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="keep the results of the other readers in results/fuzz.json")
    options = parser.parse_args()
    results = json.loads((RESULTS / "fuzz.json").read_text())["readers"] if options.add else {}
    warnings.simplefilter("error")
    with ForeignLoad() as load:
        for name in options.readers:
            with tempfile.TemporaryDirectory() as folder:
                found = run(name, options.count, Path(folder), seed=options.seed)
            results[name] = {**dataclasses.asdict(found), "problems": len(found.problems)}
            print(name, results[name], *found.problems[:5], sep="\n  ", flush=True)
    write("fuzz", {"readers": results}, load.share)
    if any(values["problems"] for values in results.values()):
        sys.exit("error: some files were neither read nor rejected properly")


if __name__ == "__main__":
    main()
