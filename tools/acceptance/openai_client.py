"""The unmodified `openai` package against the server: models, generations, streams, edits, errors."""

import base64
import io

import openai
from PIL import Image, ImageDraw
from serving import Server, program


def picture(data):
    return Image.open(io.BytesIO(base64.b64decode(data)))


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    out.name = "picture.png"
    out.seek(0)
    return out


def main():
    with Server(program()) as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
        names = [model.id for model in client.models.list()]
        print("models:", names, "| retrieve:", client.models.retrieve(names[1]).id)
        made = client.images.generate(
            prompt="a large red circle", model="builtin:shapes", n=2, size="64x64",
            response_format="b64_json", extra_body={"seed": 7, "steps": 8, "guidance": 2.5},
        )
        images = [picture(one.b64_json) for one in made.data]
        again = client.images.generate(
            prompt="a large red circle", n=1, extra_body={"seed": 8, "steps": 8, "guidance": 2.5},
        )
        same = picture(again.data[0].b64_json).tobytes() == images[1].tobytes()
        print("generate:", [i.size for i in images], "seed 8 alone is the second of seed 7:", same)
        assert same
        print("url:", client.images.generate(prompt="a blue star", response_format="url").data[0].url)
        for kind in ["jpeg", "webp"]:
            made = client.images.generate(prompt="a blue star", output_format=kind)
            print("output_format:", kind, picture(made.data[0].b64_json).format)
        events = []
        for event in client.images.generate(
            prompt="a green ring", stream=True, partial_images=2, extra_body={"steps": 60},
        ):
            events.append(event.type)
            assert picture(event.b64_json).size == (64, 64)
        print("stream:", events)
        assert events[-1] == "image_generation.completed" and len(events) <= 3
        start, mask = images[0].convert("RGB"), Image.new("RGBA", (64, 64), (0, 0, 0, 255))
        ImageDraw.Draw(mask).rectangle([0, 0, 31, 63], fill=(0, 0, 0, 0))
        edited = client.images.edit(
            image=png(start), mask=png(mask), prompt="a blue square",
            extra_body={"seed": 3, "steps": 12},
        )
        edited = picture(edited.data[0].b64_json).convert("RGB")
        kept = max(
            abs(a - b)
            for x in range(36, 64)
            for y in range(64)
            for a, b in zip(edited.getpixel((x, y)), start.getpixel((x, y)))
        )
        print("edit: right of the mask at most", kept, "of 255 away from the picture")
        varied = client.images.create_variation(image=png(start), n=1)
        print("variation:", picture(varied.data[0].b64_json).size)
        for wrong in [
            {"prompt": "x", "size": "63x63"},
            {"prompt": "x", "n": 1000},
            {"prompt": "x", "model": "gpt-image-1"},
            {"prompt": "x", "extra_body": {"sampler": "eular"}},
            {"prompt": "x", "style": "vivid"},
        ]:
            try:
                client.images.generate(**wrong)
            except openai.APIStatusError as error:
                body = error.body
                print("refused:", wrong, "->", error.status_code, body.get("param"), body.get("message"))
                assert error.status_code in (400, 404)
            else:
                raise SystemExit(f"{wrong}: was not refused")


main()
