#!/usr/bin/env python3
"""What windows of a CSV file should say, in exact arithmetic: a judge that shares nothing with the program. Standard library alone.

    expected.py readings FILE [--time COLUMN,…] [--disorder SECONDS] [--seed N]    readings for `rtlive replay`, as JSON lines
    expected.py windows FILE --every SECONDS [--time COLUMN,…]                     one JSON object for each series and window

Every column that is not time is a series, its cells integers, decimals or texts; empty cells are no readings. Times are UTC. With a
disorder each reading may come after others that are up to so much newer. Several readings of one time are not told apart.
"""

import argparse
import csv
import json
import math
import random
from datetime import datetime, timedelta, timezone
from fractions import Fraction

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)

def cell(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text

def series(path, time_columns):
    """Name → time in microseconds → value."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    header, found = rows[0], {}
    for row in rows[1:]:
        # A first column without a name is a row number.
        cells = dict(zip(header, row[len(row) - len(header):]))
        time = datetime.fromisoformat(" ".join(cells[name] for name in time_columns)).replace(tzinfo=timezone.utc)
        for name, text in cells.items():
            if name not in time_columns and text not in ("", "?"):
                found.setdefault(name, {})[(time - EPOCH) // MICROSECOND] = cell(text)
    return found

def printed(time):
    return (EPOCH + time * MICROSECOND).isoformat().replace("+00:00", "Z")

def root(square):
    """The square root, exact to the last bits of a float."""
    scale = 10**30
    return math.isqrt(int(square * scale * scale)) / Fraction(scale)

def is_number(value):
    return not isinstance(value, str)

def aggregate(points, carry, start, end):
    """All functions over the points of a window, which are in the order of time; carry is the point before them."""
    values = [value for _, value in points]
    numbers = sorted(value for value in values if is_number(value))
    record = {"count": len(values), "first": values[0], "last": values[-1]}
    if numbers:
        exact = [Fraction(number) for number in numbers]
        mean = sum(exact) / len(exact)
        record |= {"min": numbers[0], "max": numbers[-1], "sum": float(sum(exact)), "mean": float(mean)}
        record["range"] = float(exact[-1] - exact[0])
        record["std"] = float(root(sum((number - mean) ** 2 for number in exact) / len(exact)))
        record["rms"] = float(root(sum(number**2 for number in exact) / len(exact)))
        for percent in ("5", "50", "95", "99.9"):
            record["p" + percent] = numbers[math.ceil(len(numbers) * Fraction(percent) / 100) - 1]
    counted = [(time, Fraction(value)) for time, value in carry + points if is_number(value)]
    if len(counted) > 1:
        pairs = list(zip(counted, counted[1:]))
        increase = sum(later if later < value else later - value for (_, value), (_, later) in pairs)
        seconds = Fraction(counted[-1][0] - counted[0][0], 10**6)
        record |= {"increase": float(increase), "rate": float(increase / seconds)}
        record["resets"] = sum(later < value for (_, value), (_, later) in pairs)
    held = [(max(time, start), value) for time, value in carry + points]
    held = [(value, until - time) for (time, value), until in zip(held, [time for time, _ in held[1:]] + [end])]
    if numbers and all(is_number(value) for value, _ in held):
        record["time_mean"] = float(sum(Fraction(value) * time for value, time in held) / sum(time for _, time in held))
    states = {}
    for value, time in held:
        if not isinstance(value, float) and time:
            states[str(value)] = states.get(str(value), 0) + time
    if states and len(states) <= 16:
        record["time_in_state"] = {state: time / 10**6 for state, time in sorted(states.items())}
    return record

def windows(found, every):
    for name, readings in found.items():
        groups = {}
        for time in sorted(readings):
            groups.setdefault(time // every * every, []).append((time, readings[time]))
        carry = []
        for start, points in groups.items():
            yield {"series": name, "start": printed(start), "end": printed(start + every)} | aggregate(points, carry, start, start + every)
            carry = points[-1:]

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["readings", "windows"])
    parser.add_argument("file")
    parser.add_argument("--time", default="timestamp")
    parser.add_argument("--every", type=int, default=3600)
    parser.add_argument("--disorder", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = series(options.file, options.time.split(","))
    if options.what == "windows":
        for record in windows(found, options.every * 10**6):
            print(json.dumps(record))
        return
    chance = random.Random(options.seed)
    readings = [(time, name, value) for name, readings in found.items() for time, value in readings.items()]
    readings.sort(key=lambda reading: (reading[0] + chance.uniform(0, options.disorder * 10**6), reading[1]))
    for time, name, value in readings:
        print(json.dumps({"series": "csv/" + name, "time": printed(time), "value": value}))

if __name__ == "__main__":
    main()
