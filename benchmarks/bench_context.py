"""Learned words around class names (CoOp): a step with what cannot change computed once, over the plain loop.

CLIP of transformers with the sizes of ViT-B/32 and random weights, fp32, 32 pictures a step, 10 and 100 classes, 4
learned tokens. Everything is taken in turn in one process, and class texts and losses of both ways are compared first.

plain: as in the released code, every picture encoded at every step, and the text tower on all 77 places.
ours: `feed.LookedOnce` (pictures looked at once, outside of the step) and the text tower on the longest class text.
limit: the bare text tower, forward and input gradient, on embeddings of that same length: what no way can do without.
"""

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import reprogram as rp
from benchmarks._common import interleaved, ratio, table, write
from reprogram.fit.feed import OutputCache, feed_for
from reprogram.sources.transformers_clip import dual_source
from reprogram.testing.language import tiny_tokenizer

BATCH, TOKENS, PLACES = 32, 4, 77
LIMITS = {"plain over ours": "at least 10", "ours over the bare text tower": "near 1", "losses differ by": 1e-4}


def model(small: bool) -> Any:
    """The same random weights every time."""
    import transformers as t

    tokenizer = tiny_tokenizer("roberta")
    sizes = (64, 2, 4, 64, 64) if small else (768, 12, 12, 512, 224)
    width, layers, heads, shared, pixels = sizes
    text_width = min(512, width)
    text = {"hidden_size": text_width, "intermediate_size": 4 * text_width, "num_hidden_layers": layers,
            "num_attention_heads": heads if small else 8, "vocab_size": len(tokenizer),
            "max_position_embeddings": PLACES, "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
              "num_attention_heads": heads, "image_size": pixels, "patch_size": 32}  # fmt: skip
    torch.manual_seed(0)
    config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=shared)
    return t.CLIPModel(config).eval().requires_grad_(False), tokenizer


def task_of(classes: int, pixels: int) -> rp.Task:
    """Random pictures; names of about ten tokens, as class names are with a tokenizer of bytes."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2 * max(classes, BATCH), 3, pixels, pixels), generator=draw, dtype=torch.uint8)
    names = tuple(f"thing {i:03d}" for i in range(classes))
    return rp.Task.from_arrays(x, torch.arange(len(x)) % classes, classes=names, name="random")


class Plain:
    """CoOp's loop as published, on the model itself."""

    def __init__(self, clip: Any, tokenizer: Any, classes: tuple[str, ...], context: Tensor, pixels: Any) -> None:
        self.clip, self.pixels = clip, pixels
        self.context = context.detach().clone().requires_grad_()
        said = [f"{name}." for name in classes]
        self.ids = tokenizer(said, padding="max_length", max_length=PLACES, return_tensors="pt")["input_ids"]
        self.end = (self.ids == clip.config.text_config.eos_token_id).int().argmax(1) + TOKENS

    def texts(self) -> Tensor:
        """Class texts on all places."""
        text = self.clip.text_model
        table = text.embeddings.token_embedding(self.ids)
        rows = self.context.expand(len(self.ids), -1, -1)
        whole = torch.cat([table[:, :1], rows, table[:, 1 : PLACES - TOKENS]], 1)
        hidden = whole + text.embeddings.position_embedding.weight
        mask = torch.full((PLACES, PLACES), float("-inf")).triu(1)[None, None]
        hidden = text.final_layer_norm(text.encoder(inputs_embeds=hidden, attention_mask=mask).last_hidden_state)
        return F.normalize(self.clip.text_projection(hidden[torch.arange(len(self.ids)), self.end]), dim=-1)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Of one batch."""
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.pixels.mean, self.pixels.std))
        with torch.no_grad():
            seen = self.clip.get_image_features((x.float() / 255 - mean) / std).pooler_output
        scores = self.clip.logit_scale.exp() * F.normalize(seen, dim=-1) @ self.texts().T
        return F.cross_entropy(scores, labels)


def compare(small: bool, classes: int, runs: int) -> dict[str, object]:
    """One number of classes."""
    clip, tokenizer = model(small)
    source = dual_source(clip, tokenizer)
    size = source.spec.input_shape[-1]
    task = task_of(classes, size)
    program = rp.build("coop", source, task, tokens=TOKENS, seed=0)
    context: Any = program.input.edits[1]
    plain = Plain(clip, tokenizer, task.classes, context.values, source.spec.preprocessing)
    feed = feed_for(program, cache=OutputCache())
    index = torch.arange(BATCH)
    x, labels = task.train.fetch(index), task.train.labels[index]
    assert isinstance(x, Tensor)

    def ours() -> Tensor:
        loss = F.cross_entropy(program.output(feed.outputs(task.train, index)), labels)
        loss.backward()
        return loss.detach()

    def theirs() -> Tensor:
        loss = plain.loss(x, labels)
        loss.backward()
        return loss.detach()

    tower = source.text.module
    longest = max(len(source.text.encode(f"{name}.")) for name in task.classes) + 2 + TOKENS
    embeds = torch.randn(classes, longest, source.text.embeddings.shape[1], requires_grad=True)
    mask = torch.ones(classes, longest, dtype=torch.int64)

    def bare() -> None:
        tower(inputs_embeds=embeds, attention_mask=mask).pooler_output.sum().backward()

    apart = float((ours() - theirs()).abs())
    times = interleaved({"plain": theirs, "ours": ours, "bare": bare}, runs=runs, warmup=1)
    return {"classes": classes, "plain over ours": ratio(times["plain"], times["ours"]),
            "ours over the bare text tower": ratio(times["ours"], times["bare"]), "losses differ by": apart,
            "tokens a class text": longest}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model, for a smoke run")
    arguments, _ = parser.parse_known_args(argv)
    torch.set_num_threads(1)
    rows = [compare(arguments.quick, classes, 2 if arguments.quick else 5) for classes in (10, 100)]
    print(table(rows))
    print(f"aims: {LIMITS}")
    if not arguments.quick:
        write("context", {"rows": rows, "limits": LIMITS, "batch": BATCH, "tokens": TOKENS})


if __name__ == "__main__":
    main()
