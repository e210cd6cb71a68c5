"""Looks at what the machine exported: each reading's value is the time since the boot at which it was written."""

import json
import re
import sys
from datetime import datetime

WRONG_MAX_S = 0.05


def seconds(time):
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()


def main(log):
    records, marks = [], {}
    for line in open(log, encoding="utf-8", errors="replace"):
        # The console is a terminal, on which the program shows its progress.
        line = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", line)
        if line.startswith("{"):
            records.append(json.loads(line))
        elif line.startswith(">> "):
            word, _, rest = line[3:].strip().partition(" ")
            marks[word] = rest
    ahead = int(marks["ahead"]) / 1e9
    readings = [record for record in records if record.get("series") == "tick/up" and "value" in record]
    raw = [reading for reading in readings if reading["stream"] == "raw"]
    unsynced = [reading for reading in readings if reading["stream"] == "unsynced"]
    assert len(raw) == int(marks["lines"]), f"{len(raw)} readings of the second boot, {marks['lines']} lines were written"
    assert len(unsynced) >= 25, f"{len(unsynced)} readings of the boot that the power cut ended"
    assert all(reading.get("clock") == "unsynced" for reading in unsynced), "one of them is not marked"
    assert not any("clock" in reading for reading in raw), "one is marked whose time is known"
    values = [reading["value"] for reading in unsynced]
    assert values == sorted(values), "they are out of order"
    gaps = [later - earlier for earlier, later in zip(values, values[1:])]
    assert max(gaps) < 2, f"some are missing: {gaps}"
    assert all(seconds(reading["time"]) > 1.7e9 for reading in readings), "something is of 1970"
    wrong = [seconds(reading["time"]) - reading["value"] - ahead for reading in raw]
    counts = {}
    for record in records:
        if record["stream"] == "ten":
            counts[record["start"]] = record["count"]
    for start, count in counts.items():
        expected = sum(seconds(start) <= seconds(reading["time"]) < seconds(start) + 10 for reading in raw)
        assert count == expected or start == max(counts), f"the window from {start} has {count} of {expected}"
    print(f"{len(unsynced)} readings from before the power cut, all marked and in order; {len(raw)} from after it,")
    print(f"their times {min(wrong) * 1000:.1f} to {max(wrong) * 1000:.1f} ms after they were written; {len(counts)} windows as they say")
    assert -WRONG_MAX_S <= min(wrong) and max(wrong) <= WRONG_MAX_S, "that is too much"


main(sys.argv[1])
