"""Checks what arrived: arrived.py POLLS < JSON lines of `rtlive decode`. Exit 3 until so many polls of every series are there."""

import json
import sys

from modbus_server import EXPECTED

records = [json.loads(line) for line in sys.stdin]
readings = [record for record in records if record.get("stream") == "raw"]
if len(readings) < int(sys.argv[1]) * len(EXPECTED):
    sys.exit(3)
for reading in readings:
    if reading["value"] != EXPECTED[reading["series"]] or reading["quality"] != "good":
        sys.exit(f"FAILED: expected {EXPECTED[reading['series']]}: {reading}")
numbers = [reading["seq"] for reading in readings]
if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
    sys.exit(f"FAILED: the numbers have holes: {numbers}")
if {reading["series"] for reading in readings} != set(EXPECTED):
    sys.exit("FAILED: a series is missing")
print(f"ok: {len(readings)} readings of {len(EXPECTED)} series, every value as the device has it, numbered without a hole", file=sys.stderr)
