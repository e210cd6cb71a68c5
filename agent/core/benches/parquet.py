#!/usr/bin/env python3
"""Bytes per reading of Parquet with Zstandard (level 3), for the table of `cargo bench -p rtlive-core --bench frames`. Needs pyarrow.

    cargo bench -p rtlive-core --bench frames -- dump | python3 agent/core/benches/parquet.py
"""

import io
import json
import sys

import pyarrow
import pyarrow.parquet

rates = {}
for line in sys.stdin:
    if not line.startswith("{"):
        continue
    series = json.loads(line)
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
        rates.setdefault((series["kind"], size), []).append(total / count)
for (kind, size), found in sorted(rates.items()):
    print(f"{kind:<12} {size:>5} {sum(found) / len(found):>6.2f}")
