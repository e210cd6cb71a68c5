"""The emulated machine: boots it, presses its power key, and checks what the program in it reads. run prepares what this needs.

The power key is line 3 of a PL061, a GPIO chip that Linux drives; a press holds the line high for 100 ms of the machine's time. The machine
counts instructions as time (`-icount`), so that a busy host slows it down but does not stretch its interrupts.
"""

import argparse
import json
import queue
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

# How long something may take to come: far longer than on a loaded machine, so that only what never comes fails.
PATIENCE_S = 300
# How many edges are made: a press makes two.
PRESSES = 50
# How many samples of the level init asks for.
LEVEL_SAMPLES = 300
# How often the key is pressed while levels are sampled.
LEVEL_PRESSES = 3
# How many samples the level must rest before the key is pressed again.
LEVEL_REST = 10
# How long the machine holds the key.
PRESS_MS = 100


class Machine:
    """A booted machine: its console as lines, and its power key."""

    def __init__(self, options, part, folder, broker_port):
        qmp = folder / "qmp"
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-icount", "shift=3"]
        command += ["-display", "none", "-no-reboot", "-serial", "stdio", "-qmp", f"unix:{qmp},server,nowait"]
        command += ["-kernel", options.kernel, "-initrd", options.initrd]
        command += ["-append", f"console=ttyAMA0 quiet loglevel=1 panic=-1 rtlive.part={part}"]
        # The machine reaches the broker of this test, and nothing else.
        network = f"user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:1883-tcp:127.0.0.1:{broker_port}"
        command += ["-netdev", network, "-device", "virtio-net-device,netdev=net"] if broker_port else ["-nic", "none"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.control = socket.socket(socket.AF_UNIX)
        until("the emulator's control socket", lambda: self.control.connect_ex(str(qmp)) == 0)
        self.answers = self.control.makefile("r")
        self._execute("qmp_capabilities")

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.decode(errors="replace").rstrip())
        self.lines.put(None)

    def _execute(self, command):
        self.control.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while "return" not in (answer := json.loads(self.answers.readline())):
            if "error" in answer:
                raise SystemExit(f"the emulator refused {command}: {answer}")

    def line(self):
        """The next line of the console."""
        try:
            line = self.lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise SystemExit(f"nothing on the console for {PATIENCE_S} s") from None
        if line is None:
            raise SystemExit("the machine ended too early")
        return line

    def wait_for(self, marker):
        """Reads up to the line that starts with this, prints what is not JSON, and returns the JSON objects with that line's rest."""
        objects = []
        while not (line := self.line()).startswith(f">> {marker}"):
            objects += self.shown(line)
        print(line, flush=True)
        return objects, line.removeprefix(f">> {marker}").strip()

    @staticmethod
    def shown(line):
        """The JSON object of a line as a list of one; other lines are printed."""
        if line.startswith("{"):
            return [json.loads(line)]
        print(f"   {line}", flush=True)
        return []

    def press(self):
        """Presses the power key."""
        self._execute("system_powerdown")

    def enter(self):
        """Presses enter on the console."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self):
        """Waits until it powered itself off."""
        if self.process.wait(PATIENCE_S) != 0:
            raise SystemExit(f"the emulator ended with {self.process.returncode}")


def until(what, condition):
    """Polls until something comes true."""
    end = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE_S} s in vain: {what}")
        time.sleep(0.05)
    return result


def expect(what, condition):
    """Ends the test where something does not hold."""
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print(f"ok: {what}", flush=True)


def check_levels(machine):
    """Samples of the level become true while the key is held, and false after it."""
    before, _ = machine.wait_for("level held")
    values = [reading["value"] for reading in before]

    def sample(value, count):
        found = 0
        while found < count:
            for reading in machine.shown(machine.line()):
                values.append(reading["value"])
                found = found + 1 if reading["value"] == value else 0

    sample(False, LEVEL_REST)
    for _ in range(LEVEL_PRESSES):
        machine.press()
        sample(True, 1)
        sample(False, LEVEL_REST)
    more, exit_code = machine.wait_for("level ended with")
    values += [reading["value"] for reading in more]
    runs = [values[0]] + [b for a, b in zip(values, values[1:]) if a != b]
    expect(f"`rtlive try` ended with 0 after {LEVEL_SAMPLES} samples of the level", (exit_code, len(values)) == ("0", LEVEL_SAMPLES))
    expect(f"{LEVEL_PRESSES} presses are {LEVEL_PRESSES} times true ({values.count(True)} samples)",
           runs == [False, True] * LEVEL_PRESSES + [False])


def check_edges(machine, messages, decode):
    """Every press is a rising and a falling edge, with the kernel's times, in the agent and at the broker."""
    machine.wait_for("edges held")
    tailed = []
    for _ in range(PRESSES):
        machine.press()
        pressed = []
        while len(pressed) < 2:
            pressed += machine.shown(machine.line())
        tailed += pressed
    until(f"{2 * PRESSES} readings at the broker", lambda: len(readings(messages, decode)) >= 2 * PRESSES)
    machine.enter()
    after, exit_code = machine.wait_for("agent ended with")
    arrived = readings(messages, decode)
    expect("the agent ended with 0", exit_code == "0")
    expect("its ledger closes", all(line["ledger"]["closes"] for line in after if "ledger" in line) and len(after) == 1)
    expect(f"{PRESSES} presses are {2 * PRESSES} readings at the broker, numbered without a hole",
           [reading["seq"] for reading in arrived] == list(range(arrived[0]["seq"], arrived[0]["seq"] + 2 * PRESSES)))
    expect("they rise and fall in turn", [reading["value"] for reading in arrived] == [True, False] * PRESSES)
    same = [(reading["series"], reading["time"], reading["value"]) for reading in tailed]
    expect("`rtlive tail` showed the same", same == [(r["series"], r["time"], r["value"]) for r in arrived])
    times = [nanoseconds(reading["time"]) for reading in arrived]
    expect("their times increase", all(a < b for a, b in zip(times, times[1:])))
    held = [(fall - rise) / 1e6 for rise, fall in zip(times[::2], times[1::2])]
    print(f"the key was held for {min(held):.3f} to {max(held):.3f} ms by the kernel's times, median {statistics.median(held):.3f} ms")
    expect(f"no press is shorter than {PRESS_MS // 2} ms", min(held) > PRESS_MS // 2)


def readings(messages, decode):
    """The readings in a file of messages that the broker handed out."""
    if not messages.exists() or messages.stat().st_size == 0:
        return []
    decoded = subprocess.run([decode, "decode", messages], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    records = [json.loads(line) for line in decoded.stdout.splitlines()]
    return [record for record in records if record.get("stream") == "raw"]


def nanoseconds(text):
    """RFC 3339 with up to nine digits, as nanoseconds since the epoch."""
    seconds, fraction = re.fullmatch(r"(.{19})(?:\.(\d+))?Z", text).groups(default="")
    return int(datetime.fromisoformat(seconds + "+00:00").timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def gpio(options, folder):
    """The power key as GPIO line, through the agent to a broker on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    messages = folder / "messages"
    broker = subprocess.Popen(["/usr/sbin/mosquitto", "-c", configuration], stderr=subprocess.DEVNULL)
    try:
        until("the broker", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        with messages.open("wb") as output:
            subscribe = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-N", "-t", "rtlive/#"]
            subscriber = subprocess.Popen(subscribe, stdout=output)
        try:
            machine = Machine(options, "gpio", folder, port)
            try:
                machine.wait_for("up after")
                check_levels(machine)
                check_edges(machine, messages, options.decode)
                machine.end()
            finally:
                machine.process.kill()
        finally:
            subscriber.kill()
    finally:
        broker.kill()


def demo(options, folder):
    """The demo: a device on a pty, a broker, the agent and a subscriber, all inside the machine."""
    machine = Machine(options, "demo", folder, None)
    try:
        machine.wait_for("demo starts")
        _, exit_code = machine.wait_for("demo ended with")
        expect("`rtlive demo --for 20s` ended with 0: its ledger closes", exit_code == "0")
        machine.end()
    finally:
        machine.process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--initrd", required=True)
    parser.add_argument("--decode", required=True, help="the program of this machine, which decodes what arrives")
    parser.add_argument("parts", nargs="+", choices=["gpio", "demo"])
    options = parser.parse_args()
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            {"gpio": gpio, "demo": demo}[part](options, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
