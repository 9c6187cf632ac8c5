"""kill -9 at random moments under load: nothing that was accepted is lost, no result is broken.

    python kill.py PROGRAM [TIMES]
"""

import io
import random
import sqlite3
import sys
import tempfile
import threading
import time

import requests
from PIL import Image
from serving import Server, program


def main():
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    accepted, lock = [], threading.Lock()
    with tempfile.TemporaryDirectory() as state:
        server = Server(program(), "--at-once", "4", "--queue", "100000", state=state)
        over = threading.Event()

        def client(name):
            draw = random.Random(name)
            while not over.is_set():
                spec = {"model": draw.choice(["builtin:shapes", "builtin:fashion"]),
                        "steps": draw.choice([2, 5, 20]), "seed": draw.randrange(1000)}
                spec["prompt"] = "a red circle" if spec["model"] == "builtin:shapes" else "bag"
                try:
                    answer = requests.post(server.url + "/api/v1/jobs", json={"spec": spec}, timeout=10)
                    if answer.status_code == 202:
                        with lock:
                            accepted.append(answer.json()["id"])
                except requests.RequestException:
                    pass
                time.sleep(draw.uniform(0.05, 0.3))

        threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
        [t.start() for t in threads]
        for _ in range(times):
            time.sleep(random.uniform(0.05, 1.0))
            server.kill()
            check = sqlite3.connect(state + "/jobs.sqlite").execute("PRAGMA integrity_check").fetchone()
            assert check == ("ok",), check
            server.start()
        over.set()
        [t.join() for t in threads]
        print(f"killed {times} times, {len(accepted)} jobs accepted")
        states = {}
        for job in accepted:
            while True:
                answer = requests.get(f"{server.url}/api/v1/jobs/{job}", timeout=10)
                assert answer.status_code == 200, f"{job} is lost"
                one = answer.json()
                if one["state"] not in ("queued", "running"):
                    break
                time.sleep(0.2)
            states[one["state"]] = states.get(one["state"], 0) + 1
            if one["state"] == "failed":
                assert one["error"], one
            for image in one["images"]:
                data = requests.get(server.url + image["url"], timeout=10).content
                Image.open(io.BytesIO(data)).load()
        print("they ended:", states)
        server.stop()


main()
