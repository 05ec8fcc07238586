"""Controls are what they say they are."""

import pytest
import torch

from reprogram.core.program import Program
from reprogram.core.source import SourceOutput
from reprogram.fit import FitResult, evaluate, fit
from reprogram.inputs import Additive, Place, full_mask
from reprogram.outputs import BayesianMap, FrequencyMap, Linear
from reprogram.report import controls
from reprogram.sources import ModuleSource
from reprogram.testing import tiny_source
from tests.report.conftest import QUIET, fitted


def row(rows, name):
    return next(r for r in rows if r.name == name)


def names(rows):
    return [r.name for r in rows]


def test_rows_of_a_learned_program(blm_controls):
    assert names(blm_controls) == ["no edit, same output", "linear probe", "majority class", "random source"]
    assert all(len(r.test) == len(blm_controls[0].test) for r in blm_controls)
    assert all(r.description.endswith(".") and r.seconds >= 0 for r in blm_controls)


def test_no_edit_is_the_source_read_through_a_map_counted_by_hand(blm, blm_controls, source, task):
    def scores(split):
        x = Place(16, 16)(split.fetch(torch.arange(len(split))).float() / 255)
        with torch.no_grad():
            return source.module((x - 0.5) / 0.25)

    said, labels = scores(task.train).argmax(1), task.train.labels
    counts = torch.zeros(12, 3)
    for s, t in zip(said.tolist(), labels.tolist(), strict=True):
        counts[s, t] += 1
    by_hand = BayesianMap(12, 3)
    by_hand.observe(SourceOutput(scores(task.train)), labels)
    by_hand.refresh()
    assert torch.equal(by_hand.counts.float(), counts)
    expected = by_hand(SourceOutput(scores(task.test)))
    found = row(blm_controls, "no edit, same output")
    torch.testing.assert_close(found.test.scores, expected, atol=1e-5, rtol=1e-5)
    assert found.test.accuracy == pytest.approx(float((expected.argmax(1) == task.test.labels).double().mean()))
    assert (found.parameters.allocated, found.parameters.fitted) == (0, 36)


def test_no_edit_equals_the_method_of_that_name(blm_controls, source, task):
    theirs = fitted("no_edit", source, task, mapping="blm", epochs=1)
    assert torch.equal(row(blm_controls, "no edit, same output").test.scores, theirs.test.scores)


def test_linear_probe_equals_the_method_of_that_name(blm_controls, source, task):
    from reprogram.catalogue import build

    theirs = fit(build("linear_probe", source, task), task, options=QUIET)
    assert torch.equal(row(blm_controls, "linear probe").test.scores, theirs.test.scores)


def test_majority_answers_one_class(blm_controls, task):
    found = row(blm_controls, "majority class")
    most = int(task.train.counts().argmax())
    assert found.test.scores.argmax(1).unique().tolist() == [most]
    assert found.test.accuracy == pytest.approx(float((task.test.labels == most).double().mean()))
    assert f"“{task.classes[most]}”" in found.description


def test_no_edit_and_probe_share_one_pass(source, task, monkeypatch):
    from reprogram.fit import feed

    monkeypatch.setattr(feed, "SHARED", feed.OutputCache())
    result = fitted("ilm_vp", source, task, epochs=1)
    seen, call = [], ModuleSource.__call__

    def counted(self, x, *rest, **more):
        seen.append(len(x))
        return call(self, x, *rest, **more)

    monkeypatch.setattr(ModuleSource, "__call__", counted)
    controls(result, task)
    assert sum(seen) == len(task.train) + len(task.val) + len(task.test)


def test_the_program_and_its_source_stay_as_they_are(source, task):
    result = fitted("blm", source, task)
    state = {k: v.clone() for k, v in result.program.state_dict().items()}
    prints = source.fingerprint()
    controls(result, task, full=True)
    assert source.fingerprint() == prints
    assert all(torch.equal(v, state[k]) for k, v in result.program.state_dict().items())


def test_a_control_has_no_row_for_itself(source, task):
    assert names(controls(fitted("no_edit", source, task), task)) == ["linear probe", "majority class"]
    assert names(controls(fitted("linear_probe", source, task), task)) == ["majority class"]
    features = fitted("linear_probe", tiny_source(), task, features=True)
    assert names(controls(features, task)) == ["linear probe", "majority class"]


def test_rule_based_output_is_only_evaluated(source, task):
    from reprogram.outputs import FirstClasses

    result = fitted("vp", source, task)
    found = row(controls(result, task), "no edit, same output")
    expected = evaluate(Program([Place(16, 16)], source, FirstClasses(12, 3)), task.test)
    assert torch.equal(found.test.scores, expected.scores)
    assert found.parameters.allocated == found.parameters.fitted == 0


def by_hand(source, task, output) -> FitResult:
    program = Program([Place(16, 16), Additive(full_mask(16), site="normalised")], source, output)
    from reprogram.core.method import Recipe
    from reprogram.fit import FitOptions

    return fit(program, task, options=FitOptions(progress=False, recipe=Recipe(epochs=2, batch_size=8)))


def test_programs_made_by_hand(source, task):
    result = by_hand(source, task, FrequencyMap(12, 3))
    rows = controls(result, task, full=True)
    assert row(rows, "no edit, same output").test is not None
    broken = row(rows, "random source")
    assert broken.test is None and "made by hand" in broken.description

    result = by_hand(source, task, Linear(12, 3))
    weight = result.program.output.weight.clone()
    found = row(controls(result, task), "no edit, same output")
    assert found.parameters.allocated == 39
    assert torch.equal(result.program.output.weight, weight)


def test_programs_without_placement(source, task):
    """The task's pictures reach the source at their own size; controls then see them at that size, too."""
    program = Program([Additive(full_mask(8))], source, BayesianMap(12, 3))
    from reprogram.core.method import Recipe
    from reprogram.fit import FitOptions

    result = fit(program, task, options=FitOptions(progress=False, recipe=Recipe(epochs=1, batch_size=8)))
    found = row(controls(result, task), "no edit, same output")
    plain = Program([], source, BayesianMap(12, 3))
    theirs = fit(plain, task, options=FitOptions(progress=False, recipe=Recipe(epochs=1, refresh="once")))
    assert torch.equal(found.test.scores, theirs.test.scores)


def test_without_validation_and_test(source):
    from tests.report.conftest import random_task

    task = random_task(3, 6, val=0, test=0)
    rows = controls(fitted("blm", source, task), task)
    assert [r.test for r in rows] == [None] * 3 and [r.validation for r in rows] == [None] * 3
