#!/usr/bin/env python3
"""Bytes per reading of Parquet with Zstandard (level 3), for the table of `cargo bench -p rtlive-core --bench frames`. Needs pyarrow.

Takes a series of times and values a line, as JSON; prints a line for each, with the bytes in blocks of 60, 600 and 3,600 readings.
"""

import io
import json
import sys

import pyarrow
import pyarrow.parquet

for line in sys.stdin:
    series, rates = json.loads(line), []
    for size in (60, 600, 3600):
        count = total = 0
        for start in range(0, len(series["ts"]), size):
            times, values = series["ts"][start : start + size], series["v"][start : start + size]
            if len(times) < size <= len(series["ts"]):
                continue
            columns = {"ts": pyarrow.array(times, pyarrow.timestamp("ms")), "v": pyarrow.array(values, pyarrow.float64())}
            file = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.table(columns), file, compression="zstd", compression_level=3)
            count, total = count + len(times), total + file.tell()
        rates.append(f"{total / count:.4f}")
    print(*rates)
