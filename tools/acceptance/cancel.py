"""Cancelling one job of a batch: it ends at most one network evaluation later, and the others do not notice.

    python cancel.py PROGRAM [ROUNDS]

In each round six jobs of one model share its network, and one of them is cancelled at a random moment. How far it
was is read before and after; the five others must give the pictures that they give by themselves.
"""

import random
import sys
import time

import requests
from serving import Server, program

SAMPLERS = ["ddim", "euler", "dpmpp-2m", "ddpm", "euler-ancestral", "unipc"]
STEPS = 60


def spec(name, seed):
    return {
        "model": "builtin:shapes", "prompt": "a red circle", "sampler": name, "grid": "trailing",
        "steps": STEPS, "guidance": 2.0, "seed": seed,
    }


def main():
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    draw = random.Random(5)
    with Server(program()) as server:
        session = requests.Session()
        session.headers["Content-Type"] = "application/json"

        def view(job):
            return session.get(f"{server.url}/api/v1/jobs/{job}", timeout=60).json()

        def begin(name):
            answer = session.post(server.url + "/api/v1/jobs", json={"spec": spec(name, 7)}, timeout=60)
            assert answer.status_code == 202, answer.text
            return answer.json()["id"]

        def ended(job):
            while view(job)["state"] in ("queued", "running"):
                time.sleep(0.01)
            return view(job)

        def picture(job):
            return session.get(f"{server.url}/api/v1/jobs/{job}/images/0.png", timeout=60).content

        alone = {}
        for name in SAMPLERS:
            job = begin(name)
            assert ended(job)["state"] == "done"
            alone[name] = picture(job)

        further, waits, steps = [], [], []
        for _ in range(rounds):
            jobs = {name: begin(name) for name in SAMPLERS}
            victim = draw.choice(SAMPLERS)
            goal = draw.randint(5, STEPS - 15)
            began = time.perf_counter()
            while view(jobs[victim])["progress"]["step"] < goal:
                time.sleep(0.002)
            each = (time.perf_counter() - began) / goal
            # The answer says how far it was when the word arrived.
            at = time.perf_counter()
            answer = session.post(f"{server.url}/api/v1/jobs/{jobs[victim]}/cancel", json={}, timeout=60).json()
            at_word = reached = answer["progress"]["step"]
            while (now := view(jobs[victim]))["state"] == "running":
                reached = now["progress"]["step"]
                time.sleep(0.002)
            waits.append(time.perf_counter() - at)
            steps.append(each)
            assert now["state"] == "cancelled", now
            further.append(reached - at_word)
            for name, job in jobs.items():
                if name != victim:
                    assert ended(job)["state"] == "done"
                    assert picture(job) == alone[name], f"{name} changed when {victim} was cancelled"
        print(
            f"{rounds} cancelled among five others: at most {max(further)} step(s) later, "
            f"{1000 * max(waits):.0f} ms at most, {1000 * sum(waits) / rounds:.0f} ms in the mean; "
            f"a step of the batch took {1000 * sum(steps) / rounds:.0f} ms. The others' pictures are as alone."
        )
        assert max(further) <= 1


if __name__ == "__main__":
    main()
