"""Prints which numbers of the stream `raw` and which values stand in a receiver's Parquet files, as one JSON object by agent.

usage: rows.py FOLDER

Each agent has `seq`, the numbers of all rows, sorted, each as often as it stands there, and `n`, the values of the series `app/n`, likewise.
"""

import glob
import json
import sys
from collections import defaultdict

import pyarrow.parquet


def main():
    (folder,) = sys.argv[1:]
    found = defaultdict(lambda: {"seq": [], "n": []})
    for path in glob.glob(f"{folder}/*/stream=raw/*.parquet"):
        table = pyarrow.parquet.ParquetFile(path).read(["agent", "seq", "series", "value_int"])
        for agent, seq, series, value in zip(*(column.to_pylist() for column in table.columns)):
            found[agent]["seq"].append(seq)
            if series == "app/n":
                found[agent]["n"].append(value)
    for columns in found.values():
        for values in columns.values():
            values.sort()
    print(json.dumps(found))


main()
