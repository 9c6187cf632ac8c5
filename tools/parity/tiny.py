"""Writes the tiny pipelines with random weights that prompts and adapters are checked on.

    TOKENIZER=/tmp/tokenizer cargo test --release -p tweedie --lib -- --ignored write_the_files_of_the_fixture
    python tools/parity/tiny.py /tmp/tokenizer crates/tweedie/tests/data/pipelines

`one` has one text encoder, as StableDiffusionPipeline; `two` has two, as StableDiffusionXLPipeline.
Weights are rounded to f16, in which they are stored. Needs diffusers, transformers and torch.
"""

import json
import shutil
import sys
import zlib
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 8,
    "norm_num_groups": 4,
    "layers_per_block": 2,
}
ONE = {
    **UNET,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
}
TWO = {
    **UNET,
    "block_out_channels": [8, 8, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [1, 2, 4],
    "layers_per_block": 1,
    "use_linear_projection": True,
    "cross_attention_dim": 28,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 10 + 6 * 4,
}
VAE = {
    "latent_channels": 4,
    "block_out_channels": [4, 4],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_size": 16,
}
CLIP = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
    "projection_dim": 16,
}
LARGER = {**CLIP, "hidden_size": 12, "intermediate_size": 24, "hidden_act": "gelu", "projection_dim": 10}


def randomise(model, name):
    """Lively weights, rounded to f16, from a seed by name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            value = 0.2 * noise + (1.0 if (parameter.data == 1).all() else 0.0)
        else:
            value = noise / parameter[0].numel() ** 0.5
        parameter.data = value.half().float()
    return model.eval()


def tokenizer(folder, pad):
    made = transformers.CLIPTokenizer.from_pretrained(folder, pad_token=pad)
    made.model_max_length = CLIP["max_position_embeddings"]
    return made


def text_encoder(cls, config, tokens, name):
    ids = {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id}
    config = transformers.CLIPTextConfig(vocab_size=len(tokens), pad_token_id=tokens.pad_token_id, **ids, **config)
    config._attn_implementation = "eager"
    return randomise(cls(config), name)


def pipelines(tokens):
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = diffusers.DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    first, second = tokenizer(tokens, "<|endoftext|>"), tokenizer(tokens, "!")
    vae = randomise(diffusers.AutoencoderKL(**VAE), "vae")
    clip, larger = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
    one = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder(clip, CLIP, first, "one.text_encoder"),
        tokenizer=first,
        unet=randomise(diffusers.UNet2DConditionModel(**ONE), "one.unet"),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    two = diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder(clip, CLIP, first, "two.text_encoder"),
        tokenizer=first,
        text_encoder_2=text_encoder(larger, LARGER, second, "two.text_encoder_2"),
        tokenizer_2=second,
        unet=randomise(diffusers.UNet2DConditionModel(**TWO), "two.unet"),
        scheduler=scheduler,
        add_watermarker=False,
    )
    return {"one": one, "two": two}


def open_pipeline(root, name):
    cls = {"one": diffusers.StableDiffusionPipeline, "two": diffusers.StableDiffusionXLPipeline}[name]
    extra = {"requires_safety_checker": False} if name == "one" else {"add_watermarker": False}
    absent = {"safety_checker": None, "feature_extractor": None} if name == "one" else {}
    pipeline = cls.from_pretrained(Path(root) / name, torch_dtype=torch.float32, **absent, **extra)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def versions():
    packages = {"torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__}
    return {**packages, "transformers": transformers.__version__}


if __name__ == "__main__":
    tokens, root = Path(sys.argv[1]), Path(sys.argv[2])
    for name, pipeline in pipelines(tokens).items():
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        pipeline.to(torch.float16).save_pretrained(folder)
        file = folder / "text_encoder" / "model.safetensors"
        weights = load_file(file)
        # As the published files have it; transformers left the prefix out in 5.6.
        if not any(key.startswith("text_model.") for key in weights):
            save_file({f"text_model.{k}": v for k, v in weights.items()}, file, {"format": "pt"})
        for tokenizer_folder in folder.glob("tokenizer*"):
            # The plain files are smaller than tokenizer.json, and every program reads them.
            for file in ["vocab.json", "merges.txt"]:
                shutil.copy(tokens / file, tokenizer_folder / file)
            (tokenizer_folder / "tokenizer.json").unlink(missing_ok=True)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                print(f"{file.relative_to(root)}: {file.stat().st_size} bytes")
        print(json.dumps(versions()))
