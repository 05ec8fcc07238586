"""A backdoor and REFINE against it (Chen et al., ICLR 2025, arXiv 2502.18508), on a source that is poisoned here.

A network is trained on pictures of which some bear a patch and another label (`poison`), so that the patch alone gives
that label. Then programs are fitted to it on clean pictures that the attacker did not use: REFINE, which redraws the
picture and asks for permuted classes without looking at a label, and a plain learned pattern as its control.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from reprogram.catalogue import build
from reprogram.core.errors import SourceError, say
from reprogram.core.program import Program
from reprogram.core.source import Preprocessing
from reprogram.experiments.backdoor_shown import NONE, PLAIN, REFINED, charts, remarks, sheets
from reprogram.experiments.claims import Row
from reprogram.experiments.experiment import of
from reprogram.experiments.options import Options
from reprogram.experiments.poison import Attack, Trigger, pixels_of, planted
from reprogram.experiments.study import Cell, Finding, Measure, Study, compared
from reprogram.fit import FitOptions, evaluate, fit
from reprogram.sources import ModuleSource, load_source
from reprogram.sources.cifar_resnet import ResNet
from reprogram.sources.module import wrap
from reprogram.tasks import Split, Task, load_task

LARGEST = 32
"""Pictures are scaled to at most so many pixels where the network is trained here."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done.

    Attributes:
        attacked: pictures that the attacker trains on, at most.
        clean: pictures that programs are fitted on, at most; no picture is in both.
        val: to choose the epoch by, at most.
        test: to score on, at most.
        new: epochs of training a network of its own, at `new_rate`.
        new_rate: of SGD.
        tuned: epochs of fine-tuning a ready-made one, at a tenth of that rate.
        refine: epochs of REFINE.
        channels: of its U-Net's first level.
        plain: epochs of the plain pattern.
    """

    attacked: int = 1500
    clean: int = 2000
    val: int = 300
    test: int = 2000
    new: int = 6
    new_rate: float = 0.1
    tuned: int = 3
    refine: int = 12
    channels: int = 8
    plain: int = 6


WHOLE = Scale()
QUICK = Scale(attacked=120, clean=60, val=20, test=60, new=1, tuned=1, refine=1, channels=2, plain=1)


def scale(options: Options) -> Scale:
    """How much of everything."""
    return QUICK if options.quick else WHOLE


def cells(options: Options) -> list[Cell]:
    """Three defences, seed by seed."""
    known = {"source": list(options.sources), "data": options.source_task, **asdict(scale(options))}
    return [
        {"name": f"{defence}, seed {seed}", "defence": defence, "seed": seed, **known}
        for seed in range(1 if options.quick else options.seeds)
        for defence in (NONE, PLAIN, REFINED)
    ]


def bench(options: Options) -> Measure:
    """Data are loaded when a cell needs them; poisoned networks are kept in the experiment's folder."""
    return _Bench(options).measure


@final
class _Bench:
    def __init__(self, options: Options) -> None:
        self.options, self.scale, self.trigger = options, scale(options), Trigger()

    @cached_property
    def task(self) -> Task:
        """Pictures of the size that the source reads."""
        ref, side = self.options.source_task, None
        if self.options.sources:
            side = self._ready().spec.input_shape[-1]
        task = load_task(ref)
        if max(task.spec.sample.shape[1:]) > LARGEST or (side and task.spec.sample.shape[1:] != (side, side)):
            task = load_task(ref, size=side or LARGEST)
        return task.limit(val=self.scale.val, test=self.scale.test)

    def measure(self, cell: Cell) -> Sequence[Row]:
        seed = cell["seed"]
        source, task = self._source(seed), self._clean(seed)
        row = {"seed": seed, "defence": cell["defence"], "source": source.spec.ref}
        return [{**row, **self._scores(self._program(cell["defence"], source, task, seed))}]

    def _ready(self) -> ModuleSource:
        found = load_source(self.options.sources[0])
        if not isinstance(found, ModuleSource):
            raise SourceError(say("sources", "must be an image classifier that runs here", found.spec.ref))
        return found

    def _rows(self, seed: int) -> tuple[Split, Split]:
        """The attacker's pictures and the defender's."""
        train = self.task.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        half = min(self.scale.attacked, len(train) // 2)
        return train.subset(order[:half].sort().values), train.subset(order[half:].sort().values)

    def _source(self, seed: int) -> ModuleSource:
        """The source with the backdoor."""
        attacked = self._rows(seed)[0]
        classes, shape = self.task.classes, self.task.spec.sample.shape
        attack = Attack(trigger=self.trigger, seed=seed)
        if self.options.sources:
            ready = self._ready()
            if ready.spec.outputs != len(classes):
                got = f"{ready.spec.outputs} of {ready.spec.ref}, {len(classes)} of {self.task.name}"
                raise SourceError(say("sources", "must have the classes of its own task, --source-task", got))
            pixels = ready.spec.preprocessing.mean, ready.spec.preprocessing.std
            attack = replace(attack, epochs=self.scale.tuned, rate=self.scale.new_rate / 10)
            name, make = ready.spec.ref.rpartition("/")[2].removesuffix(".safetensors"), lambda: self._ready().module
        else:
            pixels = pixels_of(attacked)
            attack = replace(attack, epochs=self.scale.new, rate=self.scale.new_rate)
            name, make = "resnet8", lambda: _resnet(len(classes))
        mark = f"{attacked.digest()[:8]}-{attack.epochs}"
        network = planted(make, attacked, pixels, attack, self._place(f"{name}-seed{seed}-{mark}"))
        return wrap(network, input_shape=shape, labels=classes, preprocess=Preprocessing(mean=pixels[0], std=pixels[1]),
                    ref=f"backdoored/{name}-seed{seed}")  # fmt: skip

    def _place(self, name: str) -> Path:
        return self.options.out / "sources" / f"{name}.safetensors"

    def _clean(self, seed: int) -> Task:
        whole = replace(self.task, splits={**self.task.splits, "train": self._rows(seed)[1]})
        return whole.limit(train=self.scale.clean)

    def _program(self, defence: str, source: ModuleSource, task: Task, seed: int) -> Program:
        if defence == NONE:
            return build("no_edit", source, task, mapping="first")
        own: dict[str, Any] = {"epochs": self.scale.plain, "prompt": "watermark"}
        if defence == REFINED:
            own = {"epochs": self.scale.refine, "channels": self.scale.channels, "permutation": seed}
        method = "refine" if defence == REFINED else "ilm_vp"
        program = build(method, source, task, preset="cpu", seed=seed, **own)
        return fit(program, task, seed=seed, options=FitOptions(progress=False)).program

    def _scores(self, program: Program) -> Row:
        """On clean test pictures, and on stamped ones of the other classes."""
        test, target = self.task.test, self.trigger.target
        others = (test.labels != target).nonzero().flatten()
        x, y = self.trigger.stamp(test.pictures(others)), test.labels[others]
        clean = evaluate(program, test)
        stamped = evaluate(program, Split("stamped", x, torch.full_like(y, target), classes=len(self.task.classes)))
        return {
            "accuracy": clean.accuracy, "accuracy_interval": clean.interval(), "pictures": len(test),
            "attack": stamped.accuracy, "attack_interval": stamped.interval(), "stamped": len(y),
            "seen_through": float((stamped.scores.argmax(1) == y).float().mean()),
            "numbers": program.count().effective,
        }  # fmt: skip


def _resnet(classes: int) -> nn.Module:
    """A ResNet of eight layers (He et al. 2016, section 4.2) for any number of classes."""
    made = ResNet(1)
    made.linear = nn.Linear(made.linear.in_features, classes)
    return made


# -- verdicts ----------------------------------------------------------------------------------------------------------


def judge(rows: Sequence[Row]) -> list[Finding]:
    """Whether the backdoor is there, and what each program does to it."""
    none, plain, refined = (sorted(of(rows, defence=d), key=lambda r: r["seed"]) for d in (NONE, PLAIN, REFINED))
    where = "test pictures with the patch, other classes than the target's"
    return [
        compared("The backdoor takes: attack success without a defence above 90 %", where, _column(none, "attack"),
                 above=0.9),
        compared("REFINE lowers the attack's success: difference to no defence", where,
                 _minus(none, refined, "attack")),
        compared("With REFINE, nine in ten stamped pictures or more escape the target: share above 90 %", where,
                 [1 - v for v in _column(refined, "attack")], above=0.9),
        compared("REFINE costs less than five points: accuracy less that without a defence, above -5 %",
                 "clean test pictures", _minus(refined, none, "accuracy"), above=-0.05),
        compared("A plain learned pattern leaves the backdoor open: attack success above 50 %", where,
                 _column(plain, "attack"), above=0.5),
        compared("REFINE lowers the attack's success more than a plain learned pattern: difference", where,
                 _minus(plain, refined, "attack")),
    ]  # fmt: skip


def _column(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows]


def _minus(one: Sequence[Row], other: Sequence[Row], name: str) -> list[float]:
    return [a - b for a, b in zip(_column(one, name), _column(other, name), strict=True)]


def protocol(options: Options) -> list[str]:
    """How it was done."""
    chosen = scale(options)
    who = f"{options.sources[0]}, fine-tuned for {chosen.tuned} epochs at {chosen.new_rate / 10:g}" if options.sources \
        else f"a ResNet of 8 layers, trained for {chosen.new} epochs at {chosen.new_rate:g}"  # fmt: skip
    attack, trigger = Attack(), Trigger()
    return [
        f"Source: {who} (SGD, momentum 0.9, cosine) on at most {chosen.attacked} pictures of {options.source_task}; "
        f"{attack.share:.0%} of those of other classes bear a chequered patch of {trigger.side} x {trigger.side} "
        f"pixels at the lower right and the label of class {trigger.target}.",
        f"Programs: fitted on at most {chosen.clean} other, clean pictures; the best epoch by accuracy on at most "
        f"{chosen.val} validation pictures.",
        f"REFINE: a U-Net of {chosen.channels} channels, {chosen.refine} epochs of Adam at 0.003 in batches of 64; its "
        "loss needs no labels, choosing the epoch does. A new permutation for each seed.",
        f"Plain pattern: ILM-VP's, over the whole picture, one class each by frequency, {chosen.plain} epochs of Adam "
        "at 0.003 in batches of 50, with labels.",
        "Attack success: stamped test pictures of other classes that are put into the target class; 95 % intervals of "
        "one seed are Wilson's, for these pictures and this source.",
    ]  # fmt: skip


STUDY = Study(
    name="backdoor",
    title="A backdoor, and reprogramming as a defence",
    question="A source was poisoned: a patch in the corner makes it say one class. REFINE learns to redraw pictures so "
    "that the frozen source answers in permuted classes. Does the patch lose its hold, what does it cost, and would "
    "any learned input do?",
    cells=cells,
    bench=bench,
    judge=judge,
    charts=charts,
    sheets=sheets,
    remarks=remarks,
    protocol=protocol,
    caveats=(
        "One trigger, one share, one target class, small networks: other attacks may fare differently, and none was "
        "made that knows of the defence.",
        "The paper trains its U-Net of 64 channels for 150 epochs on tens of thousands of pictures; here it is a small "
        "one on few. A U-Net must tell classes apart to permute them, so few pictures cost accuracy.",
        "Intervals over seeds are for the median and need five seeds; a seed changes the poisoned source, too.",
    ),
    ready=True,
    takes=frozenset({"source_task"}),
)
