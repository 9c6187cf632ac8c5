"""A server to be tested: started on a free port, ended at the end.

All scripts here take the program as their first argument and talk to loopback only. They want a
virtual environment with `openai`, `webuiapi`, `requests`, `pillow`, `numpy`, `schemathesis` and
`playwright` (with a Chromium on the machine), as far as each uses them.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import requests


class Server:
    def __init__(self, program, *arguments, state=None):
        self.program, self.arguments, self.state = program, list(arguments), state
        self.process = None
        self.start()

    def start(self):
        command = [self.program, "serve", "--port", "0", "--json", *self.arguments]
        if self.state:
            command += ["--state", self.state]
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, start_new_session=True
        )
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start: " + open(self.log.name).read())
        self.port = json.loads(line)["port"]
        self.url = f"http://127.0.0.1:{self.port}"
        for _ in range(600):
            if requests.get(self.url + "/readyz", timeout=10).ok:
                return
            time.sleep(0.05)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.kill()
        return self.process.returncode

    def memory(self):
        """Resident memory in MiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS"):
                    return int(line.split()[1]) / 1024
        return 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


def program():
    if len(sys.argv) < 2:
        raise SystemExit(f"usage: {sys.argv[0]} PROGRAM")
    return sys.argv[1]


def command_line(program, spec, folder):
    """The pixels that the command line draws for a spec of the server's own interface."""
    import numpy
    from PIL import Image

    out = os.path.join(folder, "one.png")
    arguments = [program, "generate", "--model", spec["model"], "--out", out, "--json"]
    if spec.get("prompt"):
        arguments.insert(2, spec["prompt"])
    for flag in ["sampler", "grid", "steps", "guidance", "seed", "width", "height"]:
        if spec.get(flag) is not None:
            arguments += [f"--{flag}", str(spec[flag])]
    subprocess.run(arguments, check=True, capture_output=True)
    return numpy.asarray(Image.open(out))
