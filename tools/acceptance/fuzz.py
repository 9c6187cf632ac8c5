"""Requests made from the OpenAPI document, and mutated uploads: no 5xx, no panic, no hang.

    python fuzz.py PROGRAM [CASES] [UPLOADS]
"""

import base64
import io
import os
import random
import subprocess
import sys

import requests
from PIL import Image
from serving import Server, program


def uploads():
    """Small valid pictures of every kind that is read."""
    image = Image.effect_noise((24, 16), 40).convert("RGB")
    for kind, arguments in [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True})]:
        out = io.BytesIO()
        image.save(out, kind, **arguments)
        yield out.getvalue()
    out = io.BytesIO()
    image.convert("RGBA").save(out, "PNG")
    yield out.getvalue()


def mutated(draw, data):
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        kind, at = draw.randrange(4), draw.randrange(max(1, len(data)))
        if kind == 0:
            data[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del data[at : at + draw.randrange(1, 40)]
        elif kind == 2:
            data[at:at] = os.urandom(draw.randrange(1, 40))
        else:
            # Lengths and sizes: large numbers where small ones stood.
            data[at : at + 4] = draw.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"])
    return bytes(data)


def main():
    cases = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    with Server(program(), "--max-steps", "8", "--max-side", "128", "--max-count", "2",
                "--queue", "64") as server:
        operations = 11
        result = subprocess.run(
            [sys.executable.replace("python", "schemathesis"), "run",
             server.url + "/api/v1/openapi.json", "--checks", "not_a_server_error",
             "--max-examples", str(-(-cases // operations)), "--request-timeout", "60",
             "--seed", "1", "--exclude-path-regex", "events$"],
            capture_output=True, text=True,
        )
        print("\n".join(result.stdout.splitlines()[-25:]))
        draw, statuses, slowest = random.Random(1), {}, 0.0
        whole = list(uploads())
        for i in range(count):
            data = mutated(draw, draw.choice(whole))
            door = i % 3
            if door == 0:
                body = {"spec": {"model": "builtin:shapes", "steps": 1, "prompt": "a red circle"},
                        "init": base64.b64encode(data).decode()}
                answer = requests.post(server.url + "/api/v1/jobs", json=body, timeout=60)
            elif door == 1:
                files = {"image": ("a.png", data)}
                fields = {"prompt": "a red circle", "steps": "1"}
                answer = requests.post(server.url + "/v1/images/edits", files=files, data=fields,
                                       timeout=60)
            else:
                body = {"init_images": [base64.b64encode(data).decode()], "steps": 1,
                        "prompt": "a red circle", "width": 64, "height": 64}
                answer = requests.post(server.url + "/sdapi/v1/img2img", json=body, timeout=60)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            slowest = max(slowest, answer.elapsed.total_seconds())
            assert answer.status_code < 500, (door, answer.status_code, answer.text)
        print(f"{count} mutated uploads: {statuses}, the slowest {slowest:.2f} s")
        assert requests.get(server.url + "/readyz").ok and server.process.poll() is None
        panics = [line for line in open(server.log.name) if "panicked" in line]
        print("panics in the log:", len(panics), panics[:3])
        assert not panics
        assert result.returncode == 0, result.returncode


main()
