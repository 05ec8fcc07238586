"""The engine against a plain loop, and its promises."""

import json

import pytest
import torch
import torch.nn.functional as F

from reprogram.catalogue import build
from reprogram.core.errors import ArtifactError, BusyError, ConfigError, FingerprintError, FitError
from reprogram.core.program import Program
from reprogram.fit import FitOptions, evaluate, fit, measure, run_folder
from reprogram.fit.state import mix
from reprogram.fit.workspace import Workspace
from reprogram.inputs import Additive, Place, full_mask
from reprogram.outputs import BayesianMap, Identity
from reprogram.outputs.label_maps import bayesian_map, count_pairs
from reprogram.store import read
from reprogram.testing import tiny_source, tiny_task

QUIET = FitOptions(progress=False)
SMALL = {"epochs": 3, "batch_size": 8}


def state(program):
    return {k: v.clone() for k, v in program.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def plain_blm(program, task, *, epochs, batch, lr, seed, refresh):
    """The recipe as a paper's script would write it, statistics and all."""
    values = program.input.edits[1].values
    optimizer = torch.optim.Adam([values], lr=lr)
    x, y = task.train.fetch(torch.arange(len(task.train))).float() / 255, task.train.labels
    source, t = program.source, len(task.classes)
    matrix = None

    def scores(rows):
        return source(rows, program.input).logits

    for epoch in range(epochs):
        if refresh == "exact" or (refresh == "once" and epoch == 0):
            with torch.no_grad():
                predicted = torch.cat([scores(part).argmax(1) for part in x.split(batch)])
            matrix = bayesian_map(count_pairs(predicted, y, source.spec.outputs, t))
        seen: list[torch.Tensor] = []
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(mix(seed, epoch)))
        for index in order.split(batch):
            z = scores(x[index])
            seen.append(torch.stack([z.detach().argmax(1), y[index]]))
            if refresh == "stream" and epoch == 0:
                matrix = bayesian_map(count_pairs(*torch.cat(seen, 1), source.spec.outputs, t))
            loss = F.cross_entropy(z @ matrix, y[index])
            optimizer.zero_grad()
            loss.backward()
            done, done2 = (epoch >= round(m * epochs) for m in (0.5, 0.72))
            optimizer.param_groups[0]["lr"] = lr * 0.1**done * 0.1**done2
            optimizer.step()
        if refresh == "stream":
            matrix = bayesian_map(count_pairs(*torch.cat(seen, 1), source.spec.outputs, t))
    return values.detach(), matrix


@pytest.mark.parametrize("refresh", ["stream", "exact", "once"])
def test_engine_equals_a_plain_loop(refresh):
    task = tiny_task()
    config = {"epochs": 3, "batch_size": 8, "lr": 0.1, "refresh": refresh}
    mine = build("blm", tiny_source(), task, **config)
    theirs = build("blm", tiny_source(), task, **config)
    values, matrix = plain_blm(theirs, task, epochs=3, batch=8, lr=0.1, seed=5, refresh=refresh)
    result = fit(mine, task, seed=5, options=QUIET)
    # selection may put an earlier epoch back; compare the last one through a fit without validation
    if result.best_epoch == 2:
        torch.testing.assert_close(mine.input.edits[1].values.detach(), values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.output.fold(), matrix)
    else:
        assert result.best_epoch < 2
        assert result.last_test is not result.test


def test_learning_works_and_beats_no_edit():
    task = tiny_task(per_class=60)
    source = tiny_source()
    control = fit(build("no_edit", source, task), task, options=QUIET)
    program = build("blm", source, task, lr=0.1, epochs=8, batch_size=16)
    learned = fit(program, task, options=QUIET)
    assert learned.history[-1]["loss"] < learned.history[0]["loss"]
    assert learned.test.accuracy > control.test.accuracy + 0.05


@pytest.mark.parametrize("method", ["blm", "smm", "vp", "ilm_vp", "linear_probe"])
def test_same_seed_same_bits_other_seed_other_bits(method):
    task = tiny_task()
    extra = {"patch": 4} if method == "smm" else {"width": 3} if method == "vp" else {}
    extra |= {"augment": "crop"} if method == "blm" else {}

    def run(seed):
        program = build(method, tiny_source(), task, **SMALL, **extra)
        fit(program, task, seed=seed, options=QUIET)
        return state(program)

    torch.manual_seed(1)
    first = run(0)
    torch.manual_seed(2)
    assert same(first, run(0))
    assert not same(first, run(1))


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    fit(build("blm", tiny_source(), tiny_task(), **SMALL), tiny_task(), options=QUIET)
    assert torch.equal(before, torch.get_rng_state())


def test_fixed_input_runs_the_source_once():
    task, source = tiny_task(seed=9), tiny_source()
    calls = []
    source.module.register_forward_hook(lambda _m, args, _o: calls.append(len(args[0])))
    fit(build("linear_probe", source, task, epochs=20, patience=None), task, options=QUIET)
    assert sum(calls) == len(task.train) + len(task.val) + len(task.test)
    fit(build("no_edit", source, task), task, options=QUIET)  # the control shares the same pass
    assert sum(calls) == len(task.train) + len(task.val) + len(task.test)


def test_streaming_needs_no_pass_of_its_own():
    task, source = tiny_task(), tiny_source()
    calls = []
    source.module.register_forward_hook(lambda _m, args, _o: calls.append(len(args[0])))
    fit(build("blm", source, task, epochs=2, batch_size=8), task, options=QUIET)
    assert sum(calls) <= 2 * (len(task.train) + len(task.val)) + 2 * len(task.test) + len(task.val)


def test_mapping_statistics_are_taken_with_the_prompt_and_in_eval_mode():
    """AutoVP's code counts without its prompt, SMM's with its batch norm in training: neither here."""
    task, source = tiny_task(), tiny_source()
    program = build("smm", source, task, patch=4, refresh="exact", **SMALL)
    program.input.edits[1].values.data.normal_()
    seen = []
    program.input.edits[1].register_forward_hook(lambda m, *_: seen.append((m.training, torch.is_grad_enabled())))
    fit(program, task, options=QUIET)
    assert (False, False) in seen and (True, True) in seen and (True, False) not in seen


def test_selection_is_on_validation():
    task = tiny_task(per_class=40)
    program = build("blm", tiny_source(), task, epochs=6, batch_size=8, lr=0.5)
    result = fit(program, task, options=FitOptions(progress=False, track_test=True))
    rows = result.history
    best = max(range(len(rows)), key=lambda i: (rows[i]["val_accuracy"], -rows[i]["val_loss"]))
    assert result.best_epoch == best
    assert result.test.accuracy == pytest.approx(rows[best]["test_accuracy"])
    assert result.last_test.accuracy == pytest.approx(rows[-1]["test_accuracy"])
    assert result.card()["best_test_epoch_accuracy"] == max(r["test_accuracy"] for r in rows)
    again = evaluate(result.program, task.test)
    assert again.accuracy == result.test.accuracy


def test_early_stopping():
    task = tiny_task()
    result = fit(build("blm", tiny_source(), task, epochs=50, batch_size=8, lr=1e-9, patience=2), task, options=QUIET)
    assert len(result.history) <= 6


def test_a_loss_that_is_not_finite_stops_with_the_best_state(tmp_path):
    task = tiny_task()
    program = build("blm", tiny_source(), task, epochs=4, batch_size=8)
    good = fit(program, task, options=QUIET)
    kept = state(good.program)

    class Poison:
        """Answers well for an epoch, then with NaN."""

        count = 0

        def __call__(self, module, args, out):
            Poison.count += 1
            return out * float("nan") if Poison.count > 12 else out

    program.source.module.register_forward_hook(Poison())
    with pytest.raises(FitError, match=r"loss at epoch \d, step \d.*must be finite.*recipe.lr"):
        fit(program, task, out=tmp_path / "p.safetensors", options=QUIET)
    assert all(bool(v.isfinite().all()) for v in state(program).values())
    assert not (tmp_path / "p.safetensors").exists()
    assert kept.keys() == state(program).keys()


def test_a_source_that_changes_is_noticed():
    task = tiny_task()
    program = build("blm", tiny_source(), task, **SMALL)

    def spoil(module, args, out):
        next(module.parameters()).data.view(-1)[0] += 1e-6

    program.source.module.register_forward_hook(spoil)
    with pytest.raises(FingerprintError, match="bit-identical"):
        fit(program, task, options=QUIET)


def test_only_the_program_gets_gradients_and_weights_none():
    task = tiny_task()
    program = build("blm", tiny_source(), task, **SMALL)
    fit(program, task, options=QUIET)
    assert all(p.grad is None for p in program.source.module.parameters())


def test_files_of_a_run(tmp_path):
    task, out = tiny_task(), tmp_path / "deep" / "p.safetensors"
    result = fit(build("blm", tiny_source(), task, **SMALL), task, out=out, seed=3, options=QUIET)
    assert result.out == out and out.is_file()
    lines = [json.loads(line) for line in (run_folder(out) / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", *["epoch"] * 3, "end"]
    card = read(out).card
    assert card.seed == 3 and card.metrics["test_accuracy"] == pytest.approx(result.test.accuracy)
    assert "Bayesian-guided" in card.citation


class Stop(Exception):
    """Stands for a kill in the middle of a fit."""


@pytest.mark.parametrize("method", ["blm", "blm_plus", "ilm_vp", "smm", "flm", "blm in fp16"])
@pytest.mark.parametrize("calls", [1, 3, 7, 11])
def test_resumed_equals_uninterrupted_bit_for_bit(method, calls, tmp_path, monkeypatch):
    task = tiny_task()
    method, half = method.removesuffix(" in fp16"), method.endswith("fp16")
    extra = {"patch": 4} if method == "smm" else {}
    options = FitOptions(progress=False, checkpoint_seconds=0, precision="fp16" if half else "fp32")

    def make():
        return build(method, tiny_source(), task, **SMALL, augment="crop", schedule="cosine", **extra)

    whole = fit(make(), task, out=tmp_path / "whole.safetensors", seed=1, options=options)
    from reprogram.fit import state as module

    count = 0
    write = module.write_tensors

    def failing(*args, **kwargs):
        nonlocal count
        write(*args, **kwargs)
        count += 1
        if count == calls:
            raise Stop

    monkeypatch.setattr(module, "write_tensors", failing)
    out = tmp_path / "cut.safetensors"
    with pytest.raises(Stop):
        fit(make(), task, out=out, seed=1, options=options)
    monkeypatch.setattr(module, "write_tensors", write)
    resumed = fit(make(), task, out=out, seed=1, resume=True, options=options)
    assert same(state(whole.program), state(resumed.program))
    assert resumed.test.accuracy == whole.test.accuracy and resumed.best_epoch == whole.best_epoch
    drop = ("seconds",)
    rows = [[{k: v for k, v in r.items() if k not in drop} for r in x.history] for x in (whole, resumed)]
    assert rows[0] == rows[1]
    events = [json.loads(line)["event"] for line in (run_folder(out) / "events.jsonl").read_text().splitlines()]
    assert events.count("epoch") == 3


@pytest.mark.parametrize("where", ["after the optimizer's step", "after counting", "while scoring"])
def test_an_interrupt_anywhere_resumes_to_the_same_bits(where, tmp_path, monkeypatch):
    """Ctrl-C strikes in the middle of a step: it waits for the step's end, and nothing is lost or done twice."""
    import os
    import signal

    task, out = tiny_task(), tmp_path / "cut.safetensors"

    def make():
        return build("blm", tiny_source(), task, **SMALL)

    slow = FitOptions(progress=False, checkpoint_seconds=1e9)
    whole = fit(make(), task, options=slow)
    from reprogram.fit import engine
    from reprogram.outputs import BayesianMap

    targets = {
        "after the optimizer's step": (torch.optim.Adam, "step"),
        "after counting": (BayesianMap, "observe"),
        "while scoring": (engine._Run, "_scores"),
    }
    owner, name = targets[where]
    real, count = getattr(owner, name), 0

    def struck(*args, **kwargs):
        nonlocal count
        result = real(*args, **kwargs)
        count += 1
        if count == (2 if where == "while scoring" else 8):
            os.kill(os.getpid(), signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, struck)
        with pytest.raises(KeyboardInterrupt):
            fit(make(), task, out=out, options=slow)
    assert (run_folder(out) / "checkpoint.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = fit(make(), task, out=out, resume=True, options=slow)
    assert same(state(whole.program), state(resumed.program))


def test_a_second_interrupt_acts_at_once(tmp_path, monkeypatch):
    import os
    import signal

    from reprogram.outputs import BayesianMap

    task, out = tiny_task(), tmp_path / "cut.safetensors"
    real, after = BayesianMap.observe, []

    def struck(*args):
        real(*args)
        os.kill(os.getpid(), signal.SIGINT)
        after.append("once")
        os.kill(os.getpid(), signal.SIGINT)
        after.append("never")

    monkeypatch.setattr(BayesianMap, "observe", struck)
    with pytest.raises(KeyboardInterrupt):
        fit(build("blm", tiny_source(), task, **SMALL), task, out=out, options=QUIET)
    assert after == ["once"]
    assert not (run_folder(out) / "checkpoint.safetensors").exists()


def test_a_finished_run_resumes_to_the_same_result(tmp_path):
    task, out = tiny_task(), tmp_path / "p.safetensors"
    first = fit(build("blm", tiny_source(), task, **SMALL), task, out=out, options=QUIET)
    again = fit(build("blm", tiny_source(), task, **SMALL), task, out=out, resume=True, options=QUIET)
    assert same(state(first.program), state(again.program))


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    task, out = tiny_task(), tmp_path / "p.safetensors"
    fit(build("blm", tiny_source(), task, **SMALL), task, out=out, options=QUIET)
    with pytest.raises(ArtifactError, match=r"same fit.*seed.*--resume"):
        fit(build("blm", tiny_source(), task, **SMALL), task, out=out, seed=4, resume=True, options=QUIET)
    with pytest.raises(ArtifactError, match="source"):
        fit(build("blm", tiny_source(seed=2), task, **SMALL), task, out=out, resume=True, options=QUIET)
    run_folder(out).joinpath("checkpoint.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ArtifactError):
        fit(build("blm", tiny_source(), task, **SMALL), task, out=out, resume=True, options=QUIET)


def test_two_fits_on_one_output(tmp_path):
    task, out = tiny_task(), tmp_path / "p.safetensors"
    with Workspace(out), pytest.raises(BusyError, match="in use by another fit"):
        fit(build("blm", tiny_source(), task, **SMALL), task, out=out, options=QUIET)
    fit(build("blm", tiny_source(), task, **SMALL), task, out=out, options=QUIET)


def test_bad_places(tmp_path):
    task = tiny_task()
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "p.safetensors"):
        with pytest.raises(ConfigError, match="out"):
            fit(build("blm", tiny_source(), task, **SMALL), task, out=out, options=QUIET)
    with pytest.raises(ConfigError, match="resume"):
        fit(build("blm", tiny_source(), task, **SMALL), task, resume=True, options=QUIET)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision(precision):
    task = tiny_task()
    program = build("blm", tiny_source(), task, **SMALL, clip_norm=1.0)
    result = fit(program, task, options=FitOptions(progress=False, precision=precision))
    assert program.input.edits[1].values.dtype == torch.float32
    assert all(row["loss"] == row["loss"] for row in result.history)


def test_gradients_are_unscaled_before_clipping():
    """AutoVP clips first: with a scale of 65,536 a clipped step would be 65,536 times too small."""
    task = tiny_task()
    results = []
    for precision in ("fp32", "fp16"):
        program = build("blm", tiny_source(), task, epochs=1, batch_size=64, optimizer="sgd", lr=1.0, clip_norm=1e-3)
        fit(program, task, options=FitOptions(progress=False, precision=precision))
        results.append(float(program.input.edits[1].values.detach().norm()))
    assert results[0] == pytest.approx(results[1], rel=0.2)
    assert results[0] > 1e-5


def test_tensorboard_on_request(tmp_path):
    task, out = tiny_task(), tmp_path / "p.safetensors"
    fit(build("no_edit", tiny_source(), task), task, out=out, options=FitOptions(progress=False, tensorboard=True))
    assert list((run_folder(out) / "tensorboard").glob("events.*"))


def test_a_program_without_origin_fits_but_is_not_saved(tmp_path):
    task = tiny_task()
    program = Program([Place(16, 16), Additive(full_mask(16))], tiny_source(), BayesianMap(12, 3))
    from reprogram.core.method import Recipe

    options = FitOptions(progress=False, recipe=Recipe(epochs=1, batch_size=8))
    with pytest.raises(ConfigError, match="method"):
        fit(program, task, out=tmp_path / "p.safetensors", options=options)
    assert fit(program, task, options=options).test is not None


def test_identity_program_without_anything_to_fit_is_only_scored():
    task = tiny_task()
    program = Program([Place(16, 16)], tiny_source(classes=3), Identity())
    assert fit(program, task, options=QUIET).test is not None


@pytest.mark.parametrize("bad", [{"checkpoint_seconds": -1.0}])
def test_options_refuse(bad):
    with pytest.raises(ConfigError):
        FitOptions(**bad)


def test_device_that_is_not_there():
    options = FitOptions(device="cuda:7", progress=False)
    with pytest.raises(ConfigError, match="device"):
        fit(build("no_edit", tiny_source(), tiny_task()), tiny_task(), options=options)


def test_group_prefix_that_fits_nothing():
    from reprogram.core.method import Group

    task = tiny_task()
    with pytest.raises(ConfigError, match=r"recipe\.groups"):
        fit(build("blm", tiny_source(), task, **SMALL, groups=[Group(prefix="nothing", lr=1.0)]), task, options=QUIET)


def test_metrics_against_scikit_learn():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, log_loss

    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 5, generator=generator)
    labels = torch.randint(0, 4, (200,), generator=generator)  # class 4 never occurs
    m, predicted = measure(scores, labels), scores.argmax(1)
    assert m.accuracy == pytest.approx(accuracy_score(labels, predicted))
    keep = predicted < 4
    assert m.balanced_accuracy == pytest.approx(
        sum(float((predicted[labels == c] == c).float().mean()) for c in range(4)) / 4
    )
    b = measure(torch.nn.functional.one_hot(predicted[keep], 5).float(), labels[keep])
    assert b.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels[keep], predicted[keep]))
    assert m.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert (m.confusion.numpy() == confusion_matrix(labels, predicted, labels=range(5))).all()
    assert m.loss == pytest.approx(log_loss(labels, scores.double().softmax(1), labels=range(5)), rel=1e-5)
