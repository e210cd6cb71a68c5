#!/usr/bin/env python3
"""Decodes rtlive messages and frames to JSON lines. Written from docs/wire-format.md; needs cbor2 and zstandard.

    mosquitto_sub -N -C 10 -t 'rtlive/#' | decode.py          decode.py FILE...

Input: messages, bare frames and JSON texts in a row. Output: a record a line. Exit code 1 at the first mistake.
"""

import io
import json
import math
import struct
import sys
import zlib
from datetime import datetime, timedelta, timezone

import cbor2
import zstandard

MASK = (1 << 64) - 1
CHECKS = [None, "not_finite", "source", "type", "unit", "duplicate", "backwards", "range", "max_rate", "spike", "stuck_after"]

def need(condition, what):
    if not condition:
        raise ValueError("expected " + what)

def signed(value):
    """The 64-bit signed integer that is `value` modulo 2^64."""
    return (value + (1 << 63) & MASK) - (1 << 63)

ABSENT = object()

class Block:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), "more bytes in a block")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self, below=256, what="a byte"):
        need(self.at < len(self.data) and self.data[self.at] < below, f"a known {what}")
        return self.take(1)[0]

    def u(self, most=MASK):
        value = shift = 0
        while True:
            byte = self.byte()
            need(shift < 70 and (byte or not shift), "an integer of at most 64 bits in its shortest form")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need(value <= most, f"at most {most}, not {value}")
                return value
            shift += 7

    def s(self):
        value = self.u()
        return value >> 1 if value & 1 == 0 else -(value >> 1) - 1

    def runs(self, count, below, optional):
        values, runs = [], self.u(count)
        for _ in range(runs):
            byte = self.byte(below, "state or type")
            values += [byte] * self.u(count - len(values))
        need(len(values) == count or (optional and not runs), "runs of all rows")
        return values or [0] * count

    def integers(self, count):
        if count <= 1:
            return [self.s()] if count else []
        coding, first = self.byte(13, "coding of integers"), self.s()
        if coding == 0:
            step = self.s()
            return [signed(first + i * step) for i in range(count)]
        unit = self.u() if coding & 8 else 1
        coding &= 7
        need(1 <= coding <= 4, f"a known coding of integers, not {coding}")
        values, k, d, p, skips = [first], 0, 0, 0, {}
        if coding == 4:
            step, phase, index = self.u(), self.s(), 0
            for _ in range(self.u(count - 1)):
                index += self.u(count - 1 - index)
                skips[index] = self.u(1 << 40)
        for i in range(1, count):
            r = self.s()
            d = d + r if coding == 3 else r
            p += 1 + skips.get(i, 0)
            k = phase + (p * step >> 16) + r if coding == 4 else d if coding == 1 else k + d
            values.append(signed(first + k * unit))
        return values

    def floats(self, count):
        coding = self.byte(4, "coding of floats")
        if coding > 1:
            planes, form = (self.take(8 * count), ">d") if coding == 2 else (self.take(4 * count), ">f")
            return [struct.unpack(form, planes[i::count])[0] for i in range(count)]
        power, positions, following = float(10 ** self.byte(16, "exponent")), [], 0
        for _ in range(self.u(count)):
            positions.append(following + self.u(count - 1 - following))
            following = positions[-1] + 1
        exceptions = [struct.unpack("<d", self.take(8))[0] for _ in positions]
        values = [float(m) / power for m in self.integers(count)]
        if coding == 1:
            values = [struct.unpack("<f", struct.pack("<f", value))[0] for value in values]
        for position, value in zip(positions, exceptions):
            values[position] = value
        return values

    def bools(self, count):
        if self.byte(2, "coding of bools") == 0:
            bitmap = self.take((count + 7) // 8)
            return [bool(bitmap[i // 8] >> i % 8 & 1) for i in range(count)]
        value, values = self.byte(2, "bool"), []
        while len(values) < count:
            run = self.u(count - len(values))
            need(run, "a run of at least one")
            values, value = values + [bool(value)] * run, not value
        return values

    def texts(self, count):
        texts = dict(enumerate(self.take(self.u(65536)).decode() for _ in range(self.u(count))))
        return [texts[index] for index in self.integers(count)]

    def column(self, count):
        kind = self.byte(6, "type of values")
        readers = [self.floats, self.integers, self.bools, self.texts, lambda count: [ABSENT] * count]
        if kind < 5:
            return readers[kind](count)
        kinds = self.runs(count, 5, False)
        columns = [iter(read(kinds.count(kind)) if kind in kinds else []) for kind, read in enumerate(readers)]
        return [next(columns[kind]) for kind in kinds]

    def order(self, series, count):
        if series == 1:
            return [0] * count
        if self.byte(2, "coding of the order") == 1:
            return self.integers(count)
        places, followers, last, new, right = [], {}, None, 0, self.u(count)
        while len(places) < count:
            if right:
                right, place = right - 1, followers.get(last, new)
            else:
                place, right = self.u(), self.u(count - len(places) - 1)
            if places:
                followers[last] = place
            last, new = place, max(new, place + 1)
            places.append(place)
        return places

    def rows(self, count):
        """The series' ids, and the place and time of each row."""
        series = self.u(count)
        ids = self.integers(series)
        places = self.order(series, count)
        need(all(0 <= place < series for place in places), "places of series")
        runs = self.u(count)
        lengths = [1] * count if runs == count else self.integers(runs)
        need(all(length > 0 for length in lengths) and sum(lengths) == count, "runs of all rows")
        first, unit, groups, start = self.s(), self.u(), {}, 0
        each = self.byte(2, "layout of times")
        for run, length in enumerate(lengths):
            groups.setdefault(places[start] if each else 0, []).append(run)
            start += length
        ticks = [0] * runs
        for group in groups.values():
            for run, tick in zip(group, self.integers(len(group))):
                ticks[run] = tick
        return ids, places, [signed(first + tick * unit) for tick, n in zip(ticks, lengths) for _ in range(n)]

    def values(self, places, series):
        """A value (or ABSENT) for each row."""
        pooled = self.byte(2, "layout of values")
        rows = [[row for row, place in enumerate(places) if place == one] for one in range(series)]
        found = {}
        for group in [sum(rows, [])] if pooled else rows:
            found |= zip(group, self.column(len(group)))
        return [found[row] for row in range(len(places))]

def printed(time):
    seconds, nanos = divmod(time, 10**9)
    date = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    fraction = f".{nanos:09}".rstrip("0").rstrip(".")
    return date.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"

def plain(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value

def computed(function, value):
    """Seconds by state are an object in a text."""
    return json.loads(value) if function == "time_in_state" and isinstance(value, str) else plain(value)

def named(series, index):
    need(0 <= index < len(series), "a series of the table")
    name, *unit = series[index]
    return name, {"unit": unit[0]} if unit else {}

def readings(data, count, series, _):
    block = Block(data)
    need(block.u() == count, "as many rows as the section says")
    ids, places, times = block.rows(count)
    values, states = block.values(places, len(ids)), block.runs(count, 8 * len(CHECKS), True)
    need(block.at == len(data), "the end of a block")
    for place, time, value, state in zip(places, times, values, states):
        need(value is not ABSENT and state & 3 < 3, "a value and a known state")
        name, unit = named(series, ids[place])
        record = {"series": name, "time": printed(time), "value": plain(value)} | unit
        record["quality"] = ["good", "suspect", "bad"][state & 3]
        record |= {"check": CHECKS[state >> 3]} if state >> 3 else {}
        yield record | ({"clock": "unsynced"} if state & 4 else {})

def aggregates(data, count, series, compute):
    block = Block(data)
    need(block.u() == count and block.u() == len(compute), "rows and functions as the contents say")
    ids, places, starts = block.rows(count)
    lengths, revisions, states = block.integers(count), block.integers(count), block.runs(count, 4, True)
    columns = [block.values(places, len(ids)) for _ in compute]
    need(block.at == len(data), "the end of a block")
    for row, (place, start) in enumerate(zip(places, starts)):
        name, unit = named(series, ids[place])
        record = {"series": name, "start": printed(start), "end": printed(signed(start + lengths[row]))}
        record["revision"] = revisions[row]
        record |= {f: computed(f, column[row]) for f, column in zip(compute, columns) if column[row] is not ABSENT} | unit
        record |= {"final": False} if states[row] & 1 else {}
        yield record | ({"deleted": True} if states[row] & 2 else {})

def notices(items, count, *_):
    need(len(items) == count, "as many notices as the section says")
    for notice in items:
        kind = notice.pop("is")
        times = {"start": None, "end": None} if kind in ("gap", "outage") else {}
        times |= {key: printed(notice[key]) for key in ("time", "start", "end") if key in notice}
        epochs = {key: f"{notice[key]:016x}" for key in ("epoch", "predecessor") if key in notice}
        record = notice | times | epochs
        if kind == "alert":
            yield record | {"values": {name: plain(value) for name, value in notice["values"]}}
        elif kind == "gap":
            yield {"gap": {"count": notice["to"] - notice["from"] + 1} | record}
        elif kind == "outage":
            yield {"gap": {"count": None} | record}
        else:
            need(kind == "epoch", "an alert, a gap, an outage or the beginning of an epoch")
            last = [dict(zip(("stream", "class", "seq"), one)) for one in notice["last"]]
            yield {"epoch_start": {"predecessor": None} | record | {"last": last}}

def records(frame, historical=False):
    items = header, packed, extension, checksum = cbor2.loads(frame)
    need(zlib.crc32(frame[:-4]) == int.from_bytes(checksum, "big"), "the right checksum")
    # Nothing follows, nothing has another form: what the bytes say is encoded as these bytes.
    need(cbor2.dumps(items, canonical=True) == frame, "deterministic CBOR, and nothing after it")
    need(header[0] == 1, f"version 1, not {header[0]}")
    need(min(header) >= 0 and min(extension, default=0) >= 0, "no critical keys")
    need(1 <= header[6] <= 65536, "a count of records")
    if header.get(9, 0) == 1:
        need(header[10] <= 16 << 20, "contents of at most 16 MiB")
        packed = zstandard.ZstdDecompressor().decompress(packed, max_output_size=header[10], allow_extra_data=False)
    need(header.get(9, 0) in (0, 1) and len(packed) == header.get(10, len(packed)), "a known codec, and its length")
    contents = cbor2.loads(packed)
    kinds, found = [readings, aggregates, notices], []
    origin = {"agent": header[1], "epoch": f"{header[2]:016x}", "stream": header[3]}
    for kind, count, data in contents[2]:
        need(kind < len(kinds) and 1 <= count <= header[6], "a known kind of section, with records")
        found += kinds[kind](data, count, contents.get(0, []), contents.get(1, []))
    need(len(found) == header[6], "as many records as the header says")
    flags = {"historical": True} if historical else {}
    flags |= {"class": header[4]} if header.get(4, "process") != "process" else {}
    for number, record in enumerate(found, header[5]):
        yield origin | {"seq": number} | record | flags

def decode(data):
    parts, at = {}, 0
    while at < len(data):
        if data[at] in b" \t\r\n":
            at += 1
        elif data[at] in b"{[":
            # The text ends where a message begins, at the latest: its first bytes are no UTF-8.
            text = data[at:].split(b"\xd9\xd9\xf7")[0].decode()
            value, end = json.JSONDecoder().raw_decode(text)
            yield from value if isinstance(value, list) else [value]
            at += len(text[:end].encode())
        else:
            stream = io.BytesIO(data[at:])
            item = cbor2.CBORDecoder(stream).decode()
            frame, at, historical = data[at : at + stream.tell()], at + stream.tell(), False
            if frame.startswith(b"\xd9\xd9\xf7"):
                version, historical, index, count, checksum, part = getattr(item, "value", item)
                need(version == 1 and index < count <= 16384, "a message of version 1")
                known = parts.setdefault((checksum, count), {})
                known[index] = part
                if len(known) < count:
                    continue
                frame = b"".join(part for _, part in sorted(parts.pop((checksum, count)).items()))
            yield from records(frame, historical)
    need(not parts, "the other parts of a frame")

def main():
    try:
        for data in [open(name, "rb").read() for name in sys.argv[1:]] or [sys.stdin.buffer.read()]:
            for record in decode(data):
                print(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
    except (ValueError, LookupError, TypeError, ArithmeticError, cbor2.CBORError, zstandard.ZstdError) as error:
        sys.exit(f"decode.py: {type(error).__name__}: {error}")

if __name__ == "__main__":
    main()
