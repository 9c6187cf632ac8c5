"""The unmodified `webuiapi` package against the server: pictures, lists, options, progress, interrupt."""

import threading
import time

import webuiapi
from PIL import Image, ImageDraw
from serving import Server, program


def main():
    with Server(program()) as server:
        api = webuiapi.WebUIApi(host="127.0.0.1", port=server.port, sampler="DPM++ 2M", steps=10)
        print("models:", api.util_get_model_names())
        print("samplers:", api.util_get_sampler_names())
        print("schedulers:", api.util_get_scheduler_names())
        api.util_set_model("shapes")
        print("current:", api.util_get_current_model())
        made = api.txt2img(
            prompt="a large red circle", seed=7, width=64, height=64, cfg_scale=2.5,
            scheduler="karras", batch_size=2,
        )
        print("txt2img:", [i.size for i in made.images], "seeds", made.info["all_seeds"])
        print("infotext:", made.info["infotexts"][0].replace("\n", " | "))
        print("png_info:", api.png_info(made.image).info.replace("\n", " | "))
        mask = Image.new("RGB", (64, 64))
        ImageDraw.Draw(mask).rectangle([0, 0, 31, 63], fill="white")
        edited = api.img2img(
            images=[made.image], mask_image=mask, prompt="a blue square", seed=2, width=64,
            height=64, denoising_strength=0.9, cfg_scale=2.5,
        )
        print("img2img:", edited.image.size, "strength", edited.info["denoising_strength"])
        larger = api.extra_single_image(made.image, upscaler_1="Lanczos", upscaling_resize=4)
        print("extras:", larger.image.size)
        high = api.txt2img(
            prompt="a green ring", seed=1, width=64, height=64, enable_hr=True, hr_scale=2,
            denoising_strength=0.5, cfg_scale=2.5,
        )
        print("second pass:", high.image.size)
        answer = {}

        def long():
            answer["made"] = api.txt2img(
                prompt="a blue star", seed=1, width=64, height=64, steps=1000, cfg_scale=2.5
            )

        thread = threading.Thread(target=long)
        thread.start()
        seen = []
        while len(seen) < 3:
            progress = api.get_progress()
            if progress["progress"] > 0:
                seen.append(round(progress["progress"], 3))
            time.sleep(0.3)
        begun = time.time()
        api.interrupt()
        thread.join()
        print("progress:", seen, "| interrupt answered after", round(time.time() - begun, 2), "s,",
              "interrupted:", answer["made"].info["interrupted"])
        api.util_wait_for_ready(check_interval=0.2)
        lists = {
            name: len(getattr(api, "get_" + name)())
            for name in ["upscalers", "loras", "embeddings", "sd_vae", "hypernetworks",
                         "face_restorers", "latent_upscale_modes", "prompt_styles", "cmd_flags",
                         "memory", "options"]
        }
        print("lists:", lists)
        for wrong in [{"restore_faces": True}, {"sampler_name": "Eular"}, {"width": 63}]:
            fields = {"prompt": "x", "width": 64, "height": 64, **wrong}
            try:
                api.txt2img(**fields)
            except RuntimeError as error:
                print("refused:", wrong, "->", error.args[0], error.args[1][:120])
            else:
                raise SystemExit(f"{wrong}: was not refused")


main()
