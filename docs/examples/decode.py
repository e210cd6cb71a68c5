#!/usr/bin/env python3
"""Decodes rtlive messages, bare frames and JSON texts in a row to JSON lines. Written from docs/wire-format.md.
Use: mosquitto_sub -N -C 10 -t 'rtlive/#' | decode.py, or decode.py FILE... Exit code 1 at the first mistake."""
import functools, io, json, math, struct, sys, zlib
from datetime import datetime, timedelta, timezone
import cbor2, zstandard
MASK, ABSENT = (1 << 64) - 1, object()
QUALITIES = ["good", "suspect", "bad"]
CHECKS = [None, "not_finite", "source", "type", "unit", "duplicate", "backwards", "range", "max_rate", "spike", "stuck_after"]

def need(condition, what):
    if not condition:
        raise ValueError("expected " + what)
def signed(value):
    """The 64-bit signed integer that is `value` modulo 2^64."""
    return (value + (1 << 63) & MASK) - (1 << 63)
double = lambda bits: struct.unpack("<d", struct.pack("<Q", bits & MASK))[0]
unfold = lambda u: u >> 1 ^ -(u & 1)
def split(token, direct):
    """The bits of a residual above its raw ones, and how many these are."""
    return (token & 3 | 4, (token - (1 << direct) >> 2) + direct - 2) if token >> direct else (token, 0)

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
            value, shift = value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                need(value <= most, f"at most {most}, not {value}")
                return value
    s = lambda self: unfold(self.u())
    def runs(self, count, below, optional):
        values, runs = [], self.u(count)
        for _ in range(runs):
            values += [self.byte(below, "state or type")] * self.u(count - len(values))
        need(len(values) == count or (optional and not runs), "runs of all rows")
        return values or [0] * count
    def residuals(self, count):
        """Residuals coded by their entropy: tokens by a range coder, then raw bits."""
        model, depth = self.byte(64, "model of residuals"), self.byte(10, "depth of a tree")
        direct, limit = model & 15, 30 if model & 32 else 255
        need(3 <= direct <= 8, "a known model of residuals")
        coded = self.take(self.u(len(self.data)))
        code, at, span, nodes, tree, held, bits = int.from_bytes(coded[:8].ljust(8, b"\0"), "big"), 8, MASK, {}, 0, 0, 0
        for _ in range(count):
            place = 1
            for _ in range(depth):
                share, uses = nodes.get((tree, place), (1 << 15, 0))
                bound, rate, bit = (span >> 16) * share, 131072 // (2 * uses + 3), 0
                if code < bound:
                    span, share, bit = bound, share + ((65536 - share) * rate >> 16), 1
                else:
                    code, span, share = code - bound, span - bound, share - (share * rate >> 16)
                nodes[tree, place], place = (share, min(uses + 1, limit)), 2 * place + bit
                if span < 1 << 32:
                    code, span, at = code << 32 | int.from_bytes(coded[at : at + 4].ljust(4, b"\0"), "big"), span << 32, at + 4
            u, raw = split(place - (1 << depth), direct)
            need(raw <= 61, "a residual of at most 64 bits")
            while bits < raw:
                held, bits = held | self.byte() << bits, bits + 8
            u, held, bits = u << raw | held & (1 << raw) - 1, held >> raw, bits - raw
            tree = min(u if u < 3 else u.bit_length() + 1, 7) if model & 16 else 0
            yield unfold(u)
    def shares(self, count):
        """Residuals by fixed shares: tokens and raw bits out of one integer, the state."""
        direct, total, weights, length = (kind := self.byte(64, "kind of shares")) & 15, 256 << (kind >> 4), [], 6
        need(3 <= direct <= 8, "a known kind of shares")
        bits = (byte >> place & 1 for byte in iter(self.byte, None) for place in range(8))
        for _ in range(self.u(480)):
            length += unfold(next(place for place, bit in enumerate(bits) if bit))
            need(0 <= length <= 24, "a weight of at most 24 bits")
            few = max(0, min(2, length - 1))
            weights.append(sum((next(bits) << place for place in range(few)), (length > 0) << few) << max(0, length - 1 - few))
        need(0 <= (spare := total - sum(weight > 0 for weight in weights)) < total, "shares of the tokens that come")
        sizes = [(weight > 0) + weight * spare // sum(weights) for weight in weights]
        sizes[weights.index(max(weights))] += total - sum(sizes)
        slots = [(*split(token, direct), size, at) for token, size in enumerate(sizes) for at in range(size)]
        refill = lambda state: state if state >> 16 else state << 16 | int.from_bytes(self.take(2), "little")
        need((state := int.from_bytes(self.take(4), "little")) >> 16, "a state of at least 2^16")
        for _ in range(count):
            u, raw, size, at = slots[state % total]
            state = refill(size * (state // total) + at)
            while raw:
                few = min(raw, 16)
                u, state, raw = u << few | state & (1 << few) - 1, refill(state >> few), raw - few
            yield unfold(u)
        need(state == 1 << 16, "the state with which a coder begins")
    def integers(self, count, flat=False):
        coding, first = self.byte(46, "coding of integers") if count > 1 else 0, self.s() if count else 0
        if coding == 0:
            return [signed(first + i * step) for step in [self.s() if count > 1 else 0] for i in range(count)]
        unit, coder, coding = self.u() if coding & 8 else 1, coding >> 4, coding & 7
        if coding == 7 and not (coder or flat):
            different = dict(enumerate(self.integers(self.u(count), True)))
            return [signed(first + different[place] * unit) for place in self.integers(count, True)]
        need(1 <= coding <= 5, f"a known coding of integers, not {coding}")
        values, k, d, e, p, skips = [first], 0, 0, 0, 0, {}
        weights = struct.unpack("bb", self.take(2)) if coding == 5 else (16 * (coding == 3), 0)
        if coding == 4:
            step, phase, index = self.u(), self.s(), 0
            for _ in range(self.u(count - 1)):
                need(ahead := self.u(count - 1 - index), "skips in order")
                skips[index := index + ahead] = self.u(1 << 40)
        for i, r in enumerate([lambda many: (self.s() for _ in range(many)), self.residuals, self.shares][coder](count - 1), 1):
            p += 1 + skips.get(i, 0)
            ahead = k + (signed(weights[0] * d + weights[1] * e) >> 4)
            v = signed(r + {1: 0, 4: phase + (p * step >> 16) if coding == 4 else 0}.get(coding, ahead))
            k, d, e = v, signed(v - k), d
            values.append(signed(first + k * unit))
        return values
    def floats(self, count):
        plain, coding = lambda: [double(m if m >= 0 else m ^ MASK >> 1) for m in self.integers(count)], self.byte(3, "coding of floats")
        return plain() if coding == 2 else self.decimals(count, coding == 1, [1.0] * count, [0.0] * count)
    def decimals(self, count, single, divisors, references):
        power, many, at = float(10 ** self.byte(23, "exponent")), self.u(count), -1
        gaps, distances, integers, values = self.integers(many), self.integers(many), self.integers(count), []
        for m, divisor, reference in zip(integers, divisors, references):
            product = reference * power * divisor
            m = signed(m + (round(product) if abs(product) <= 1 << 51 else 0))
            values.append(float(m) / power / divisor)
        values = [struct.unpack("<f", struct.pack("<f", value))[0] for value in values] if single else values
        for gap, distance in zip(gaps, distances):
            need(gap >= 0, "exceptions in order")
            at += 1 + gap
            values[at] = double(struct.unpack("<q", struct.pack("<d", values[at]))[0] + distance)
        return values
    def texts(self, count):
        texts = dict(enumerate(self.take(self.u(65536)).decode() for _ in range(self.u(count))))
        return [texts[index] for index in self.integers(count)]
    def column(self, count):
        bools, none = lambda count: [{0: False, 1: True}[one] for one in self.integers(count)], lambda count: [ABSENT] * count
        readers = [self.floats, self.integers, bools, self.texts, none]
        if (kind := self.byte(6, "type of values")) < 5:
            return readers[kind](count)
        kinds = self.runs(count, 5, False)
        columns = [iter(read(kinds.count(kind)) if kind in kinds else []) for kind, read in enumerate(readers)]
        return [next(columns[kind]) for kind in kinds]
    def order(self, series, count):
        if series == 1 or self.byte(2, "coding of the order") == 1:
            return self.integers(count) if series > 1 else [0] * count
        places, followers, last, new, right = [], {}, None, 0, self.u(count)
        while len(places) < count:
            if right:
                right, place = right - 1, followers.get(last, new)
            else:
                place, right = self.u(), self.u(count - len(places) - 1)
            followers[last], last, new = place, place, max(new, place + 1)
            places.append(place)
        return places
    def rows(self, count):
        ids = self.integers(self.u(count))  # The series' ids; then the place and time of each row.
        places = self.order(len(ids), count)
        need(all(0 <= place < len(ids) for place in places), "places of series")
        lengths = [1] * count if (runs := self.u(count)) == count else self.integers(runs)
        need(all(length > 0 for length in lengths) and sum(lengths) == count, "runs of all rows")
        base, unit, each, groups, start = self.s(), self.u(), self.byte(2, "layout of times"), {}, 0
        for run, length in enumerate(lengths):
            groups.setdefault(places[start] if each else 0, []).append(run)
            start += length
        ticks = dict(pair for group in groups.values() for pair in zip(group, self.integers(len(group))))
        return ids, places, [signed(base + ticks[run] * unit) for run, n in enumerate(lengths) for _ in range(n)]
    def values(self, places, series, before=()):
        layout = self.byte(3, "layout of values")  # A value (or ABSENT) for each row; `before` has the columns before.
        rows = [[row for row, place in enumerate(places) if place == one] for one in range(series)]
        found, joined = {}, sum(rows, [])
        if layout == 2:
            divisor, reference = [([None] * len(places), *before)[self.u(len(before))] for _ in range(2)]
            divisors = [float(divisor[row]) if type(divisor[row]) is int and divisor[row] > 0 else 1.0 for row in joined]
            references = [reference[row] if type(reference[row]) is float else 0.0 for row in joined]
            return [value for _, value in sorted(zip(joined, self.decimals(len(joined), False, divisors, references)))]
        for group in [joined] if layout else rows:
            found |= zip(group, self.column(len(group)))
        return [found[row] for row in range(len(places))]

def printed(time):
    seconds, nanos = divmod(time, 10**9)
    date = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    return date.strftime("%Y-%m-%dT%H:%M:%S") + f".{nanos:09}".rstrip("0").rstrip(".") + "Z"
def plain(value, function=None):
    if function == "time_in_state" and isinstance(value, str):
        return json.loads(value)  # Seconds by state are an object in a text.
    return None if isinstance(value, float) and not math.isfinite(value) else value
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
        record = {"series": name, "time": printed(time), "value": plain(value)} | unit | {"quality": QUALITIES[state & 3]}
        yield record | ({"check": CHECKS[state >> 3]} if state >> 3 else {}) | ({"clock": "unsynced"} if state & 4 else {})
def aggregates(data, count, series, compute):
    block = Block(data)
    need(block.u() == count and block.u() == len(compute), "rows and functions as the contents say")
    ids, places, starts = block.rows(count)
    lengths, revisions, states = block.integers(count), block.integers(count), block.runs(count, 4, True)
    columns = []
    for _ in compute:
        columns.append(block.values(places, len(ids), columns))
    need(block.at == len(data), "the end of a block")
    for row, (place, start) in enumerate(zip(places, starts)):
        name, unit = named(series, ids[place])
        record = {"series": name, "start": printed(start), "end": printed(signed(start + lengths[row])), "revision": revisions[row]}
        record |= {f: plain(column[row], f) for f, column in zip(compute, columns) if column[row] is not ABSENT} | unit
        yield record | ({"final": False} if states[row] & 1 else {}) | ({"deleted": True} if states[row] & 2 else {})
def notices(items, count, *_):
    need(len(items) == count, "as many notices as the section says")
    for notice in items:
        kind = notice.pop("is")
        times = {"start": None, "end": None} if kind in ("gap", "outage") else {}
        times |= {key: printed(notice[key]) for key in ("time", "start", "end") if key in notice}
        record = notice | times | {key: f"{notice[key]:016x}" for key in ("epoch", "predecessor") if key in notice}
        if kind == "alert":
            yield record | {"values": {name: plain(value) for name, value in notice["values"]}}
        elif kind in ("gap", "outage"):
            yield {"gap": {"count": notice["to"] - notice["from"] + 1 if kind == "gap" else None} | record}
        else:
            need(kind == "epoch", "an alert, a gap, an outage or the beginning of an epoch")
            last = [dict(zip(("stream", "class", "seq"), one)) for one in notice["last"]]
            yield {"epoch_start": {"predecessor": None} | record | {"last": last}}
def checked(item):
    items = cbor2.loads(item)
    need(zlib.crc32(item[:-4]) == int.from_bytes(items[3], "big"), "the right checksum")
    # Nothing follows, nothing has another form: what the bytes say is encoded as these bytes.
    need(cbor2.dumps(items, canonical=True) == item, "deterministic CBOR, and nothing after it")
    return items
def schema(item):
    _, agent, tables, _ = checked(item)  # Its name is the FNV-1a hash of the tables.
    step = lambda name, byte: (name ^ byte) * 0x100000001B3 & MASK
    return {(agent, functools.reduce(step, cbor2.dumps(tables, canonical=True), 0xCBF29CE484222325)): tables}
def records(frame, historical, schemas):
    header, packed, extension, _ = checked(frame)
    need(header[0] == 1 and 1 <= header[6] <= 65536, "version 1, and a count of records")
    need(type(header[1]) is type(header[3]) is str and min(header[2], header[5]) >= 0, "names and numbers in the header")
    need(min(header.keys() - {-2}) >= 0 and min(extension, default=0) >= 0, "no critical keys")
    if header.get(9, 0) == 1:
        need(header[10] <= 16 << 20, "contents of at most 16 MiB")
        packed = zstandard.ZstdDecompressor().decompress(packed, max_output_size=header[10], allow_extra_data=False)
    need(header.get(9, 0) in (0, 1) and len(packed) == header.get(10, len(packed)), "a known codec, and its length")
    contents = cbor2.loads(packed) | (schemas[header[1], header[-2]] if -2 in header else {})
    kinds, found = [readings, aggregates, notices], []
    origin = {"agent": header[1], "epoch": f"{header[2]:016x}", "stream": header[3]}
    for kind, count, data in contents[2]:
        need(kind < len(kinds) and 1 <= count <= header[6], "a known kind of section, with records")
        found += kinds[kind](data, count, contents.get(0, []), contents.get(1, []))
    need(len(found) == header[6], "as many records as the header says")
    flags = ({"historical": True} if historical else {}) | ({"class": header[4]} if header.get(4, "process") != "process" else {})
    yield from (origin | {"seq": number} | record | flags for number, record in enumerate(found, header[5]))
def decode(data):
    parts, schemas, at = {}, {}, 0
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
                (known := parts.setdefault((checksum, count), {}))[index] = part
                if len(known) < count:
                    continue
                frame = b"".join(part for _, part in sorted(parts.pop((checksum, count)).items()))
            if frame.startswith(b"\x84\x01"):
                schemas |= schema(frame)
            else:
                yield from records(frame, historical, schemas)
    need(not parts, "the other parts of a frame")

if __name__ == "__main__":
    try:
        for data in [open(name, "rb").read() for name in sys.argv[1:]] or [sys.stdin.buffer.read()]:
            for record in decode(data):
                print(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
    except (ValueError, LookupError, TypeError, ArithmeticError, cbor2.CBORError, zstandard.ZstdError) as error:
        sys.exit(f"decode.py: {type(error).__name__}: {error}")
