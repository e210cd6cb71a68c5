"""Reads the Parquet files of a receiver with PyArrow, Polars and DuckDB, and prints what each finds as one JSON object.

usage: readers.py FOLDER WINDOW

For each reader: of the stream `raw`, by series, the rows, the different numbers, and the sums of what is in the columns of values; of the window stream,
by series, the windows, and the sums of `count` and `sum` over their newest revisions.
"""

import glob
import json
import sys
from collections import defaultdict

import duckdb
import polars
import pyarrow.dataset


def of_duckdb(folder, window):
    raw = duckdb.execute(
        """
        SELECT series, count(*), count(DISTINCT (epoch, seq)), sum(value), sum(value_int)::BIGINT, sum(value_bool::INT)::BIGINT, string_agg(DISTINCT value_text, ',' ORDER BY value_text)
        FROM read_parquet(?, hive_partitioning = true) WHERE stream = 'raw' GROUP BY series
        """,
        [f"{folder}/*/*/*.parquet"],
    ).fetchall()
    windows = duckdb.execute(
        """
        SELECT series, count(*), sum(count)::BIGINT, sum(sum) FROM (
            SELECT * FROM read_parquet(?, hive_partitioning = true)
            QUALIFY row_number() OVER (PARTITION BY agent, series, "start", "end" ORDER BY revision DESC, seq DESC) = 1
        ) WHERE NOT deleted GROUP BY series
        """,
        [f"{folder}/*/stream={window}/*.parquet"],
    ).fetchall()
    return {row[0]: list(row[1:]) for row in raw}, {row[0]: list(row[1:]) for row in windows}


def of_polars(folder, window):
    raw = polars.scan_parquet(f"{folder}/*/stream=raw/*.parquet", hive_partitioning=True).group_by("series").agg(
        polars.len(),
        polars.struct("epoch", "seq").n_unique().alias("numbers"),
        polars.col("value").sum(),
        polars.col("value_int").sum(),
        polars.col("value_bool").sum(),
        polars.col("value_text").unique().drop_nulls().sort(),
        polars.col("value").count().alias("values"),
        polars.col("value_int").count().alias("ints"),
        polars.col("value_bool").count().alias("bools"),
    )
    # A sum of nothing is 0 here, and missing elsewhere.
    found = {
        row["series"]: [
            row["len"],
            row["numbers"],
            row["value"] if row["values"] else None,
            row["value_int"] if row["ints"] else None,
            row["value_bool"] if row["bools"] else None,
            ",".join(row["value_text"]) or None,
        ]
        for row in raw.collect().to_dicts()
    }
    windows = (
        polars.scan_parquet(f"{folder}/*/stream={window}/*.parquet", hive_partitioning=True)
        .sort("revision", "seq")
        .group_by("agent", "series", "start", "end")
        .last()
        .filter(~polars.col("deleted"))
        .group_by("series")
        .agg(polars.len(), polars.col("count").sum(), polars.col("sum").sum(), polars.col("sum").count().alias("sums"))
    )
    return found, {
        row["series"]: [row["len"], row["count"], row["sum"] if row["sums"] else None] for row in windows.collect().to_dicts()
    }


def of_pyarrow(folder, window):
    def rows(stream):
        files = sorted(glob.glob(f"{folder}/*/stream={stream}/*.parquet"))
        return pyarrow.dataset.dataset(files, format="parquet", partitioning="hive").to_table().to_pylist()

    def total(values):
        present = [value for value in values if value is not None]
        return sum(present) if present else None

    by_series = defaultdict(list)
    for row in rows("raw"):
        by_series[row["series"]].append(row)
    raw = {
        series: [
            len(found),
            len({(row["epoch"], row["seq"]) for row in found}),
            total(row["value"] for row in found),
            total(row["value_int"] for row in found),
            total(row["value_bool"] for row in found),
            ",".join(sorted({row["value_text"] for row in found} - {None})) or None,
        ]
        for series, found in by_series.items()
    }
    newest = {}
    for row in sorted(rows(window), key=lambda row: (row["revision"], row["seq"])):
        newest[row["agent"], row["series"], row["start"], row["end"]] = row
    by_series = defaultdict(list)
    for row in newest.values():
        if not row["deleted"]:
            by_series[row["series"]].append(row)
    windows = {
        series: [len(found), total(row["count"] for row in found), total(row.get("sum") for row in found)]
        for series, found in by_series.items()
    }
    return raw, windows


def main():
    folder, window = sys.argv[1:]
    found = {}
    for reader in (of_pyarrow, of_polars, of_duckdb):
        raw, windows = reader(folder, window)
        found[reader.__name__.removeprefix("of_")] = {"raw": raw, "windows": windows}
    print(json.dumps(found))


main()
