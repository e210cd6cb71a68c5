#!/usr/bin/env python3
"""Decodes rtlive messages and frames to JSON lines. Written from docs/wire-format.md; needs cbor2 and zstandard.

    mosquitto_sub -N -t 'rtlive/#' | decode.py          decode.py FILE...

Input: messages, bare frames and JSON texts in a row. Output: one record a line. Exit code 1 at the first thing that is wrong.
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

CONTENTS_MAX = 16 << 20
RECORDS_MAX = 65536
MASK = (1 << 64) - 1


class Refused(Exception):
    """The input is not what docs/wire-format.md says."""


def need(condition, what):
    if not condition:
        raise Refused("expected " + what)


def signed(value):
    """The 64-bit signed integer that is `value` modulo 2^64."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


# -- blocks ---------------------------------------------------------------------------------------


class Block:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), "more bytes in a block")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def u(self, most=MASK):
        value = shift = 0
        while True:
            byte = self.byte()
            need(byte or not shift, "an integer in its shortest form")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need(value <= most, f"at most {most}, not {value}")
                return value
            shift += 7
            need(shift < 64, "an integer of at most 64 bits")

    def s(self):
        value = self.u()
        return value >> 1 if value & 1 == 0 else -(value >> 1) - 1

    def text(self):
        return self.take(self.u(65536)).decode()

    def runs(self, count):
        """Runs of a byte; all 0 if there are none."""
        runs = self.u(count)
        values = []
        for _ in range(runs):
            byte = self.byte()
            values += [byte] * self.u(count - len(values))
        need(len(values) == count or not runs, "runs of all rows")
        return values or [0] * count

    def integers(self, count):
        if count <= 1:
            return [self.s()] if count else []
        coding, first = self.byte(), self.s()
        if coding == 0:
            step = self.s()
            return [signed(first + i * step) for i in range(count)]
        need(coding & ~8 in (1, 2, 3, 4), f"a known coding of integers, not {coding}")
        unit = self.u() if coding & 8 else 1
        coding &= ~8
        values, k, d, p = [first], 0, 0, 0
        if coding == 4:
            step, phase, skips, index = self.u(), self.s(), {}, 0
            for _ in range(self.u(count - 1)):
                index += self.u(count - 1 - index)
                skips[index] = self.u(1 << 40)
        for i in range(1, count):
            r = self.s()
            if coding == 1:
                k = r
            elif coding == 2:
                k += r
            elif coding == 3:
                d += r
                k += d
            else:
                p += 1 + skips.get(i, 0)
                k = phase + (p * step >> 16) + r
            values.append(signed(first + k * unit))
        return values

    def floats(self, count):
        if count == 0:
            return []
        coding = self.byte()
        if coding in (0, 1):
            exponent = self.byte()
            need(exponent <= 15, "an exponent of at most 15")
            positions, following = [], 0
            for _ in range(self.u(count)):
                positions.append(following + self.u(count - 1 - following))
                following = positions[-1] + 1
            exceptions = [struct.unpack("<d", self.take(8))[0] for _ in positions]
            values = [m / float(10**exponent) for m in map(float, self.integers(count))]
            if coding == 1:
                values = [struct.unpack("<f", struct.pack("<f", value))[0] for value in values]
            for position, value in zip(positions, exceptions):
                values[position] = value
            return values
        need(coding in (2, 3), f"a known coding of floats, not {coding}")
        width, form = (8, ">d") if coding == 2 else (4, ">f")
        planes = self.take(width * count)
        return [struct.unpack(form, planes[i::count])[0] for i in range(count)]

    def bools(self, count):
        if count == 0:
            return []
        if self.byte() == 0:
            bitmap = self.take((count + 7) // 8)
            return [bool(bitmap[i // 8] >> i % 8 & 1) for i in range(count)]
        value, values = bool(self.byte()), []
        while len(values) < count:
            run = self.u(count - len(values))
            need(run, "a run of at least one")
            values += [value] * run
            value = not value
        return values

    def texts(self, count):
        if count == 0:
            return []
        texts = [self.text() for _ in range(self.u(count))]
        indices = self.integers(count)
        need(all(0 <= index < len(texts) for index in indices), "texts of the dictionary")
        return [texts[index] for index in indices]

    def column(self, count):
        if count == 0:
            return []
        kind = self.byte()
        readers = [self.floats, self.integers, self.bools, self.texts, lambda count: [ABSENT] * count]
        if kind < 5:
            return readers[kind](count)
        need(kind == 5, f"a known type of values, not {kind}")
        kinds = []
        for _ in range(self.u(count)):
            kind = self.byte()
            need(kind < 5, f"a known type of values, not {kind}")
            kinds += [kind] * self.u(count - len(kinds))
        need(len(kinds) == count, "runs of all rows")
        columns = [iter(reader(kinds.count(kind))) for kind, reader in enumerate(readers)]
        return [next(columns[kind]) for kind in kinds]

    def rows(self, count):
        """The series' ids, and the place and time of each row."""
        if count == 0:
            return [], [], []
        series = self.u(count)
        ids = self.integers(series)
        places = self.order(series, count)
        runs = self.u(count)
        lengths = [1] * count if runs == count else self.integers(runs)
        need(all(length > 0 for length in lengths) and sum(lengths) == count, "runs of all rows")
        first, unit, layout = self.s(), self.u(), self.byte()
        need(layout in (0, 1), f"a known layout of times, not {layout}")
        if layout == 0:
            ticks = self.integers(runs)
        else:
            led, start = {}, 0
            for run, length in enumerate(lengths):
                led.setdefault(places[start], []).append(run)
                start += length
            ticks = [0] * runs
            for group in led.values():
                for run, tick in zip(group, self.integers(len(group))):
                    ticks[run] = tick
        times = [signed(first + tick * unit) for tick, n in zip(ticks, lengths) for _ in range(n)]
        return ids, places, times

    def order(self, series, count):
        need(series > 0, "a series")
        if series == 1:
            return [0] * count
        coding, places, followers, last, new = self.byte(), [], {}, None, 0
        need(coding in (0, 1), f"a known coding of the order, not {coding}")
        if coding == 1:
            places = self.integers(count)
            need(all(0 <= place < series for place in places), "places of series")
            return places
        right = self.u(count)
        while len(places) < count:
            if right:
                right -= 1
                place = followers.get(last, new)
                need(place < series, "places of series")
            else:
                place = self.u(series - 1)
                right = self.u(count - len(places) - 1)
            followers[last], last, new = place, place, max(new, place + 1)
            places.append(place)
            followers.pop(None, None)
        return places

    def values(self, places, series):
        """A value (or ABSENT) for each row."""
        rows = [[] for _ in range(series)]
        for row, place in enumerate(places):
            rows[place].append(row)
        layout = self.byte()
        need(layout in (0, 1), f"a known layout of values, not {layout}")
        groups = rows if layout == 0 else [[row for group in rows for row in group]]
        found = [ABSENT] * len(places)
        for group in groups:
            for row, value in zip(group, self.column(len(group))):
                found[row] = value
        return found


ABSENT = object()


# -- frames ---------------------------------------------------------------------------------------


def printed(time):
    """RFC 3339 in UTC with the shortest fraction."""
    seconds, nanos = divmod(time, 10**9)
    date = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    fraction = f".{nanos:09}".rstrip("0").rstrip(".")
    return date.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def plain(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def readings(data, count, series, _):
    block = Block(data)
    need(block.u(RECORDS_MAX) == count, "as many rows as the section says")
    ids, places, times = block.rows(count)
    values = block.values(places, len(ids))
    states = block.runs(count)
    need(block.at == len(data), "the end of a block")
    for place, time, value, state in zip(places, times, values, states):
        need(value is not ABSENT and state & 3 < 3 and state >> 3 < 3, "a value and a known state")
        need(0 <= ids[place] < len(series), "a series of the table")
        name, *unit = series[ids[place]]
        record = {"series": name, "time": printed(time), "value": plain(value)}
        record |= {"unit": unit[0]} if unit else {}
        record["quality"] = ["good", "suspect", "bad"][state & 3]
        record |= {"check": [None, "not_finite", "source"][state >> 3]} if state >> 3 else {}
        record |= {"clock": "unsynced"} if state & 4 else {}
        yield record


def aggregates(data, count, series, compute):
    block = Block(data)
    need(block.u(RECORDS_MAX) == count, "as many rows as the section says")
    need(block.u() == len(compute), "as many functions as the contents list")
    ids, places, starts = block.rows(count)
    lengths, revisions, states = block.integers(count), block.integers(count), block.runs(count)
    columns = [block.values(places, len(ids)) for _ in compute]
    need(block.at == len(data), "the end of a block")
    for row, (place, start) in enumerate(zip(places, starts)):
        need(0 <= ids[place] < len(series) and states[row] < 4, "a series of the table and a known state")
        name, *unit = series[ids[place]]
        record = {"series": name, "start": printed(start), "end": printed(signed(start + lengths[row]))}
        record["revision"] = revisions[row]
        for function, column in zip(compute, columns):
            if column[row] is not ABSENT:
                record[function] = plain(column[row])
        record |= {"unit": unit[0]} if unit else {}
        record |= {"final": False} if states[row] & 1 else {}
        record |= {"deleted": True} if states[row] & 2 else {}
        yield record


def notices(items, count, *_):
    need(len(items) == count, "as many notices as the section says")
    for notice in items:
        time = {key: printed(notice[key]) if key in notice else None for key in ("time", "start", "end")}
        kind = notice.get("is")
        if kind == "alert":
            record = {key: notice[key] for key in ("rule", "instance", "severity")}
            record |= {"time": time["time"], "state": notice["state"], "message": notice["message"]}
            yield record | {"values": {name: plain(value) for name, value in notice["values"]}}
        elif kind == "gap":
            gap = {key: notice[key] for key in ("stream", "class", "from", "to", "reason", "covered_by") if key in notice}
            gap |= {"epoch": f"{notice['epoch']:016x}"} if "epoch" in notice else {}
            yield {"gap": gap | {"count": gap["to"] - gap["from"] + 1, "start": time["start"], "end": time["end"]}}
        elif kind == "outage":
            gap = {"input": notice["input"], "start": time["start"], "end": time["end"]}
            yield {"gap": gap | {"count": notice.get("count"), "reason": notice["reason"]}}
        else:
            need(kind == "epoch", "an alert, a gap, an outage or the beginning of an epoch")
            last = [{"stream": stream, "class": clas, "seq": seq} for stream, clas, seq in notice["last"]]
            before = f"{notice['predecessor']:016x}" if "predecessor" in notice else None
            start = {"time": time["time"], "predecessor": before, "last": last, "reason": notice["reason"]}
            yield {"epoch_start": start}


def records(frame, historical=False):
    """The records of a frame, as `rtlive decode` prints them."""
    items = cbor2.loads(frame)
    need(isinstance(items, list) and len(items) == 4, "an array of 4 items")
    header, packed, extension, checksum = items
    need(zlib.crc32(frame[:-4]) == int.from_bytes(checksum, "big"), "the right checksum")
    # Nothing follows, nothing has another form: what the bytes say is encoded as these bytes.
    need(cbor2.dumps(items, canonical=True) == frame, "deterministic CBOR, and nothing after it")
    need(header[0] == 1, f"version 1, not {header[0]}")
    need(min(header) >= 0 and min(extension, default=0) >= 0, "no critical keys")
    need(1 <= header[6] <= RECORDS_MAX, "a count of records")
    if header.get(9, 0) == 1:
        need(header[10] <= CONTENTS_MAX, "contents of at most 16 MiB")
        packed = zstandard.ZstdDecompressor().decompress(packed, max_output_size=header[10], allow_extra_data=False)
        need(len(packed) == header[10], "the length that the header says")
    else:
        need(header.get(9, 0) == 0, f"a known codec, not {header.get(9)}")
    contents = cbor2.loads(packed)
    kinds, number = [readings, aggregates, notices], header[5]
    origin = {"agent": header[1], "epoch": f"{header[2]:016x}", "stream": header[3]}
    found = []
    for kind, count, data in contents[2]:
        need(kind < len(kinds), f"a known kind of section, not {kind}")
        found += kinds[kind](data, count, contents.get(0, []), contents.get(1, []))
    need(len(found) == header[6], "as many records as the header says")
    for record in found:
        record = origin | {"seq": number} | record
        record |= {"historical": True} if historical else {}
        record |= {"class": header[4]} if header.get(4, "process") != "process" else {}
        number += 1
        yield record


# -- streams --------------------------------------------------------------------------------------


def decode(data):
    """The records in messages, bare frames and JSON texts that follow each other."""
    parts, at = {}, 0
    while at < len(data):
        if data[at] in b" \t\r\n":
            at += 1
        elif data[at] in b"{[":
            # The text ends where a message begins, or the data does; CBOR's first bytes are no UTF-8.
            text = data[at:].decode("utf-8", "ignore") if b"\xd9\xd9\xf7" not in data[at:] else data[at : data.index(b"\xd9\xd9\xf7", at)].decode()
            value, end = json.JSONDecoder().raw_decode(text)
            yield from value if isinstance(value, list) else [value]
            at += len(text[:end].encode())
        else:
            stream = io.BytesIO(data[at:])
            item = cbor2.CBORDecoder(stream).decode()
            frame, at = data[at : at + stream.tell()], at + stream.tell()
            historical = False
            if frame.startswith(b"\xd9\xd9\xf7"):
                item = getattr(item, "value", item)
                version, historical, index, count, checksum, part = item
                need(version == 1 and index < count <= 16384, "a message of version 1")
                known = parts.setdefault((checksum, count), {})
                known[index] = part
                if len(known) < count:
                    continue
                frame = b"".join(known[i] for i in range(count))
                del parts[checksum, count]
            yield from records(frame, historical)
    need(not parts, "the other parts of a frame")


def main():
    try:
        for data in [open(name, "rb").read() for name in sys.argv[1:]] or [sys.stdin.buffer.read()]:
            for record in decode(data):
                print(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
    except (Refused, ValueError, KeyError, TypeError, IndexError, OverflowError, cbor2.CBORError, zstandard.ZstdError) as error:
        sys.exit(f"decode.py: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
