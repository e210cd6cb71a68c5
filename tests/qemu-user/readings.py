"""Writes readings for `rtlive replay`, the same in every run: decimals, doubles of every size, integers, texts, bools, some of them late.

It asks no library for arithmetic that may differ between machines: numbers come from a linear congruential generator (Knuth, MMIX).
"""

import json

STATE = 2026
COUNT = 40_000
START_MS = 1_767_225_600_000
# A reading each so many milliseconds; one in 16 is up to 12 s late.
STEP_MS = 5
LATE_MS_MAX = 12_000


def draw(limit):
    """The next number below the limit."""
    global STATE
    STATE = (STATE * 6364136223846793005 + 1442695040888963407) % 2**64
    return (STATE >> 33) % limit


for number in range(COUNT):
    late = draw(LATE_MS_MAX) if draw(16) == 0 else 0
    value = {
        "wave": (draw(2_000_001) - 1_000_000) / 1e6,
        "wide": (draw(2**31) - 2**30) * 2.0 ** (draw(240) - 120),
        "tenth": draw(4000) / 10,
        "count": number,
        "name": ("idle", "läuft", "stop")[draw(3)],
        "door": draw(2) == 1,
    }
    kind = list(value)[draw(len(value))]
    series = f"press/{draw(5)}/{kind}"
    print(json.dumps({"series": series, "time": START_MS + number * STEP_MS - late, "value": value[kind]}, ensure_ascii=False))
