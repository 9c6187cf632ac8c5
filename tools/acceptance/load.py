"""Many clients at once: nothing but 429 goes wrong, every picture is the command line's, memory stays.

    python load.py PROGRAM [CLIENTS] [REQUESTS]
"""

import collections
import random
import statistics
import sys
import tempfile
import threading
import time

import numpy
import requests
from PIL import Image
from serving import Server, command_line, program


def asked(i):
    draw = random.Random(i)
    if draw.random() < 0.5:
        spec = {"model": "builtin:fashion", "prompt": draw.choice(["bag", "sneaker", "coat"])}
    else:
        colour, shape = draw.choice(["red", "blue"]), draw.choice(["circle", "star"])
        spec = {"model": "builtin:shapes", "prompt": f"a {colour} {shape}"}
        if draw.random() < 0.2:
            spec |= {"width": 96, "height": 64}
    sampler, grid = draw.choice(
        [("dpmpp-2m", "karras"), ("ddim", "trailing"), ("euler-ancestral", "leading"),
         ("heun", "karras"), ("unipc", "leading")]
    )
    return spec | {
        "sampler": sampler, "grid": grid, "steps": draw.choice([2, 3, 4, 6]),
        "guidance": draw.choice([1.0, 2.5]), "seed": i % 40,
    }


def key(spec):
    return tuple(sorted(spec.items()))


def main():
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    numbers, lock = iter(range(count)), threading.Lock()
    pictures, statuses = {}, collections.Counter()
    memory, health = {}, []
    wrong = []
    with Server(program(), "--queue", "128") as server:
        done = [0]
        over = threading.Event()

        def client(name):
            session = requests.Session()
            session.headers["X-Client-Id"] = str(name)
            while True:
                with lock:
                    i = next(numbers, None)
                if i is None:
                    return
                spec = asked(i)
                while True:
                    answer = session.post(server.url + "/api/v1/jobs", json={"spec": spec}, timeout=600)
                    statuses[answer.status_code] += 1
                    if answer.status_code != 429:
                        break
                    time.sleep(float(answer.headers["Retry-After"]) * random.uniform(0.5, 1.5))
                if answer.status_code != 202:
                    wrong.append((spec, answer.text))
                    continue
                job = answer.json()["id"]
                # The last event of the stream is the end.
                events = session.get(f"{server.url}/api/v1/jobs/{job}/events", timeout=600)
                assert "event: end" in events.text
                image = session.get(f"{server.url}/api/v1/jobs/{job}/images/0.png", timeout=600)
                if image.status_code != 200:
                    wrong.append((spec, image.text))
                    continue
                import io

                pixels = numpy.asarray(Image.open(io.BytesIO(image.content)))
                with lock:
                    before = pictures.setdefault(key(spec), (spec, pixels))
                    if not numpy.array_equal(before[1], pixels):
                        wrong.append((spec, "two pictures of one spec differ"))
                    done[0] += 1
                    if done[0] in (count // 10, count):
                        memory[done[0]] = server.memory()

        def watch():
            while not over.is_set():
                begun = time.time()
                assert requests.get(server.url + "/healthz", timeout=60).ok
                health.append(time.time() - begun)
                time.sleep(0.05)

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = time.time()
        threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        together = time.time() - begun
        over.set()
        watcher.join()
        # The same requests, some of them, one after the other.
        part = list(range(0, count, max(1, count // 100)))
        begun = time.time()
        for i in part:
            job = requests.post(server.url + "/api/v1/jobs", json={"spec": asked(i)}).json()["id"]
            requests.get(f"{server.url}/api/v1/jobs/{job}/events", timeout=600)
        alone = (time.time() - begun) * count / len(part)
    print("statuses:", dict(statuses), "| wrong:", wrong[:3], len(wrong))
    print("memory in MiB after so many requests:", {k: round(v, 1) for k, v in sorted(memory.items())})
    percentile = statistics.quantiles(health, n=100)[98]
    print(f"/healthz: {len(health)} times, 99th percentile {percentile * 1000:.1f} ms")
    print(f"throughput: {count / together:.2f} a second together, {count / alone:.2f} one after the other,"
          f" {alone / together:.2f} times")
    with tempfile.TemporaryDirectory() as folder:
        sample = random.Random(1).sample(sorted(pictures), min(100, len(pictures)))
        same = 0
        for name in sample:
            spec, pixels = pictures[name]
            same += numpy.array_equal(pixels, command_line(program(), spec, folder))
    print(f"of {len(pictures)} different pictures {len(sample)} were drawn again by the command line:"
          f" {same} are the same")
    assert not wrong and same == len(sample) and set(statuses) <= {202, 429}


main()
