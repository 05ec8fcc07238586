"""Methods of reasoning: the contract, and generated tasks that a scripted oracle solves only if it is asked rightly."""

import json
import random
import re

import pytest
import torch

import reprogram as rp
from reprogram.catalogue import find
from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.task import TaskSpec
from reprogram.core.texts import Texts
from reprogram.inputs import demonstrated
from reprogram.outputs.numbers import numbers
from reprogram.outputs.voted import majority_at
from reprogram.tasks import Task
from reprogram.testing import check_method, hash_source, scripted_source, tiny_text_source
from tests.methods.text_tasks import opinions, orders, pairs

NAMES = ["chain_of_thought", "zero_shot_cot", "self_consistency", "least_to_most", "decomposed", "ircot"]
PASSAGES = (("Film", "the film was shot on a plot of land"), ("Book", "the book was printed"))
WORDS = [
    "think",
    "machine",
    "river",
    "stone",
    "bread",
    "window",
    "garden",
    "letter",
    "paper",
    "candle",
    "bridge",
    "forest",
]


def settings_of(name):
    return {"passages": PASSAGES} if name == "ircot" else {}


def asking(questions, answers, name):
    return Task.from_texts(list(questions), targets=list(answers), name=name)


def tail(prompt):
    """What the prompt says after its demonstrations."""
    return prompt.rsplit("\n\n", 1)[-1]


# -- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    replies = {
        "Therefore": "(C).",
        "first answer": " Is it good?",
        "QS:$": ' [qa] Is it "A"?',
        "": "So it is. The answer is (B).",
    }
    check_method(find(name), source=scripted_source(list(replies.items())), task=opinions(), **settings_of(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", [opinions, pairs, orders])
def test_nonsense_is_unparsable_and_nothing_else(name, task):
    """A source that writes bytes at random: no answer, or hardly one, and each is counted as what it is."""
    source = hash_source(seed=3)
    few = {
        "recipe.epochs": 1,
        "tokens": 24,
        **({"samples": 3} if name == "self_consistency" else {}),
        **settings_of(name),
    }
    program = rp.build(name, source, task(), **few)
    metrics = rp.evaluate(program, task().test)
    unread = [a for a in metrics.answers if a.value is None]
    assert metrics.unparsable == len(unread) / len(metrics) and all(a.reason for a in unread)
    assert metrics.accuracy <= 1 - metrics.unparsable
    assert bool(metrics.scores.isfinite().all())


def test_sources_that_do_not_write_are_refused():
    for name in NAMES:
        with pytest.raises(CapabilityError):
            rp.build(name, tiny_text_source("bert_encoder"), opinions(), **settings_of(name))


# -- chains ------------------------------------------------------------------------------------------------------------


def sums(n=40, seed=0):
    draw, rows, targets = random.Random(seed), [], []
    for _ in range(n):
        a, b, c = draw.randint(2, 99), draw.randint(2, 99), draw.randint(2, 9)
        rows.append(f"A box holds {a} red and {b} blue beads. How many beads are in {c} such boxes?")
        steps = f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b} beads. {a + b} * {c} = {(a + b) * c}"
        targets.append(f"{steps} beads.\n#### {(a + b) * c:,}")
    return asking(rows, targets, f"sums {seed}")


def solved(match, sample=0):
    a, b, c = (int(one.value) for one in numbers(match[1]))
    return f" {a} + {b} = {a + b} beads. {c} * {a + b} = {c * (a + b)} beads. The answer is {c * (a + b)}."


LAST = r"(?s:.*)Q: ([^\n]*)\nA:"


@pytest.mark.parametrize("shown", ["own", "train"])
def test_chains_are_read_right(shown):
    source, task = scripted_source([(LAST + "$", solved)]), sums()
    program = rp.build("chain_of_thought", source, task, demonstrations=shown, shots=3)
    metrics = rp.evaluate(program, task.test)
    assert metrics.accuracy == 1.0 and metrics.unparsable == 0.0
    prompt = source.calls[-1]
    assert prompt.count("The answer is") == 3 and prompt.count("Q: ") == 4 and "<<" not in prompt
    assert ("beads. The answer is" in prompt.rpartition("Q: ")[0]) == (shown == "train")
    assert len(program.origin.task.context) == (3 if shown == "train" else 0)
    again = rp.build("chain_of_thought", source, program.origin.task, demonstrations=shown, shots=3)
    assert (
        again.input(task.test.fetch(torch.arange(2))).prompts == program.input(task.test.fetch(torch.arange(2))).prompts
    )


def test_the_calculator_saves_what_can_be_saved():
    def slip(match, sample):
        return re.sub(r"= (\d+) beads", lambda m: f"= {int(m[1]) + 1000} beads", solved(match), count=1)

    task = sums(seed=1)
    source = scripted_source([(LAST + r"$(?#slip)", lambda m, i: slip(m, i).rpartition("The")[0])])
    wrong = rp.evaluate(rp.build("chain_of_thought", source, task), task.test)
    assert wrong.accuracy == 1.0  # the last number is right in spite of the slip, for the second equation is
    carried = scripted_source([(LAST + r"$(?#carried)", lambda m, i: carry(m))])
    assert rp.evaluate(rp.build("chain_of_thought", carried, task), task.test).accuracy == 0.0
    assert rp.evaluate(rp.build("chain_of_thought", carried, task, calculator=True), task.test).accuracy == 1.0


def carry(match):
    a, b, c = (int(one.value) for one in numbers(match[1]))
    wrong = a + b + 1000
    return f" {a} + {b} = {wrong} beads. {c} * {wrong} = {c * wrong} beads. The answer is {c * wrong}."


def test_classes_are_offered_as_letters():
    def choose(match, sample):
        mood = next(m for m, ws in {"bad": "awful dull poor", "funny": "hot big odd", "good": "fine great best"}.items()
                    if any(w in match[1].split() for w in ws.split()))  # fmt: skip
        letter = re.search(r"\((.)\) " + mood, match[0].rpartition("Answer choices:")[2])[1]
        return f" It says so. The answer is ({letter})."

    source = scripted_source([(r"(?s:.*)Q: ([^\n]*)\nAnswer choices: (?P<offered>[^\n]*)\nA:", choose)])
    for name in ("chain_of_thought", "self_consistency"):
        task = opinions()
        metrics = rp.evaluate(rp.build(name, source, task), task.test)
        assert metrics.accuracy == 1.0 and metrics.confusion.trace() == len(task.test)
    with pytest.raises(ConfigError, match="own"):
        rp.build("chain_of_thought", source, opinions(), demonstrations="train")


def test_a_vote_is_right_where_single_chains_are_not():
    """Three of five chains are right, one is wrong and one is unreadable."""

    def sampled(match, sample):
        return " I give up." if sample == 0 else " The answer is 1." if sample == 1 else solved(match)

    task, source = sums(seed=2), scripted_source([(LAST + "$(?#sampled)", sampled)])
    program = rp.build("self_consistency", source, task, samples=5)
    metrics = rp.evaluate(program, task.test)
    assert metrics.accuracy == 1.0
    assert all(a.unparsable == 1 and a.share == pytest.approx(0.75) for a in metrics.answers)
    assert rp.evaluate(rp.build("chain_of_thought", source, task), task.test).unparsable == 1.0
    said = program.outputs(task.test.fetch(torch.arange(1)))
    votes = [b.value for b in program.output.ballots(said)[0]]
    assert majority_at([3, 1], 0, votes.count(None), 1) == pytest.approx(0.6)
    with pytest.raises(ConfigError):
        rp.build("self_consistency", source, task, temperature=0.0)


def test_two_passes_without_demonstrations():
    source = scripted_source(
        [(r"A: Let's[^\n]*?(\d+) beads\.\nTherefore, the answer \(arabic numerals\) is$", lambda m, _: f" {m[1]}."),
         (LAST + " Let's think step by step.$", lambda m, _: solved(m).partition(" The answer")[0])]
    )  # fmt: skip
    task = sums(seed=3)
    program = rp.build("zero_shot_cot", source, task)
    metrics = rp.evaluate(program, task.test)
    steps = [step for row in program.outputs(task.test.fetch(torch.arange(3))).written for step in row[0].steps]
    assert len(steps) == 6 and metrics.unparsable == 0.0
    assert metrics.accuracy == 1.0


# -- least to most -----------------------------------------------------------------------------------------------------


def last_letters(n=30, seed=0):
    draw = random.Random(seed)
    lists = [draw.sample(WORDS, draw.randint(2, 6)) for _ in range(n)]
    rows = [f'Take the last letters of the words in "{", ".join(words)}" and join them.' for words in lists]
    return asking(rows, ["".join(word[-1] for word in words) for words in lists], f"last letters {seed}")


def shorter(match, sample=0):
    words = match[1].split(", ")
    starts = [", ".join(words[: i + 1]) for i in range(len(words))]
    return "\n".join(f'{i + 1}. What of "{start}"?'.removeprefix("1.") for i, start in enumerate(starts))


def one_more(match, sample=0):
    """Answers a part only by the answer to the part before, which must be in the prompt."""
    words = match[2].split(", ")
    before = ""
    if len(words) > 1:
        known = re.search(
            re.escape(f'What of "{", ".join(words[:-1])}"?') + r"\nA: [^\n]*The answer is (\w+)\.", match[0]
        )
        before = known[1]
    return f" It ends in {words[-1][-1]}. The answer is {before + words[-1][-1]}."


TAKE = r'(?s:.*)Take the last letters of the words in "([^"]*)" and join them\.'


def whole(match, sample=0):
    found = re.search(r'What of "([^"]*)"\?\nA: [^\n]*The answer is (\w+)\.\n\nQ: Take', match[0])
    assert found[1] == match[1]
    return f" As above. The answer is {found[2]}."


LADDER = [
    (TAKE + r"\nTo answer this, first answer:\n1\.$", shorter),
    (r'(?s:.*)(What of )"([^"]*)"\?\nA:$', one_more),
    (TAKE + r"\nA:$", whole),
]


def test_least_to_most_builds_on_earlier_answers():
    task, source = last_letters(), scripted_source(LADDER)
    program = rp.build("least_to_most", source, task, answer="text")
    metrics = rp.evaluate(program, task.test)
    assert metrics.accuracy == 1.0 and metrics.unparsable == 0.0
    assert program.predict([task.test.fetch(torch.arange(1)).columns["text"][0]]).labels[0]


def test_a_list_that_cannot_be_used_is_asked_for_once_more():
    task = last_letters(seed=1)
    again = [(TAKE + r"[^Q]*lists no question. Once more.\)\n1\.$", shorter), (TAKE + r"\nTo answer.*\n1\.$", " \n\n")]
    program = rp.build("least_to_most", scripted_source(again + LADDER[1:]), task, answer="text")
    x = task.test.fetch(torch.arange(4))
    said = program.outputs(x)
    assert [a.value for a in program.output.answers(said)] == [program.output.canonical(t) for t in x.targets]
    assert "Once more" in said.written[0][0].steps[1].prompt and said.written[0][0].reason == ""


def test_a_question_that_was_cut_off_is_left_out():
    source = scripted_source([(r"1\.$", " Why?\n2. How much is " + "more " * 90), (r"A:$", " The answer is 5.")])
    program = rp.build("least_to_most", source, ONE, tokens=100)
    steps = program.outputs(ONE.test.fetch(torch.arange(1))).written[0][0].steps
    assert [re.findall(r"Q: ([^\n]*)\nA:$", step.prompt) for step in steps] == [[], ["Why?"], ["How many?"]]


def test_least_to_most_falls_back_on_a_plain_chain():
    task = last_letters(seed=2)
    plain = lambda m, _: f" The answer is {''.join(w[-1] for w in m[1].split(', '))}."  # noqa: E731
    long = "\n".join(f"{i}. Why {i}?" for i in range(2, 30))
    source = scripted_source([(r"1\.$", long), (r"The answer is \(?\d+.*" + TAKE + r"\nA:$", plain)])
    program = rp.build("least_to_most", source, task, answer="text")
    metrics = rp.evaluate(program, task.test)
    assert metrics.accuracy == 1.0
    end = program.outputs(task.test.fetch(torch.arange(1))).written[0][0]
    assert len(end.steps) == 3 and "more than 8" in end.reason and "plain chain of thought" in end.reason


# -- decomposed --------------------------------------------------------------------------------------------------------

KTH = {"main": 'QC: Take letter 1 of each word in "ab cd" and join them.\nQS: [words] "ab cd"\nA: ["ab", "cd"]\n'
               'QS: (project_values) [kth] letter 1 of #1\nA: ["a", "c"]\nQS: (join) #2\nA: "ac"\nQS: [EOQ]',
       "kth": 'QC: letter 2 of "abc"\nQS: [letters] "abc"\nA: ["a", "b", "c"]\nQS: [pick] 2 of #1\nA: "b"\n'
              "QS: [EOQ]"}  # fmt: skip
PICK = {"pick": 'Q: 2 of ["x", "y"]\nA: "y"'}


def kth_letters(n=24, seed=0):
    draw, rows, targets = random.Random(seed), [], []
    for _ in range(n):
        k, words = draw.randint(1, 4), draw.sample(WORDS, draw.randint(2, 4))
        rows.append(f'Take letter {k} of each word in "{" ".join(words)}" and join them.')
        targets.append("".join(word[k - 1] for word in words))
    return asking(rows, targets, f"kth {seed}")


def scripted_lines(*lines):
    """A decomposer that writes its n-th line by a function of the question's match."""

    def write(match, sample=0):
        done = len(re.findall(r"^QS: .+$", match["done"], re.MULTILINE))
        return " " + lines[done](match)

    return write


def question(pattern):
    return rf"(?s:.*)QC: {pattern}\n(?P<done>(?:QS: [^\n]*\nA: [^\n]*\n)*)QS:$"


KTH_RULES = [
    (question(r'Take letter (?P<k>\d) of each word in "(?P<words>[^"]*)" and join them\.'),
     scripted_lines(lambda m: f'[words] "{m["words"]}"', lambda m: f"(project_values) [kth] letter {m['k']} of #1",
                    lambda m: "(join) #2", lambda m: "[EOQ]")),
    (question(r'letter (?P<k>\d) of "(?P<word>[^"]*)"'),
     scripted_lines(lambda m: f'[letters] "{m["word"]}"', lambda m: f"[pick] {m['k']} of #1", lambda m: "[EOQ]")),
    (r"(?s:.*)Q: (\d) of (\[[^\n]*\])\nA:$", lambda m, _: " " + json.dumps(json.loads(m[2])[int(m[1]) - 1])),
]  # fmt: skip


def test_decomposers_call_each_other():
    task, source = kth_letters(), scripted_source(KTH_RULES)
    program = rp.build("decomposed", source, task, decomposers=KTH, prompts=PICK, answer="text", calls=80)
    metrics = rp.evaluate(program, task.test)
    assert metrics.accuracy == 1.0 and metrics.unparsable == 0.0
    assert any(json.loads(m[1]) for call in source.calls if (m := re.search(r"Q: \d of (\[.*\])\nA:$", call)))


def test_arithmetic_is_worked_out_and_not_run():
    task = sums(seed=4)
    lines = scripted_lines(
        lambda m: f"[calc] {m['a']} + {m['b']}", lambda m: f"[calc] #1 * {m['c']}", lambda m: "[EOQ]"
    )
    rule = question(
        r"A box holds (?P<a>\d+) red and (?P<b>\d+) blue beads. How many beads are in (?P<c>\d) such boxes\?"
    )
    program = rp.build("decomposed", scripted_source([(rule, lines)]), task)
    assert rp.evaluate(program, task.test).accuracy == 1.0
    evil = scripted_source([(r"QC: [^\n]*\nQS:$", "[calc] __import__('os').getcwd()"),
                            (r"Once more.\)\nQS:$", "[calc] 2 + 2"), (r"A: 4\nQS:$", "[EOQ]")])  # fmt: skip
    made = rp.build("decomposed", evil, task).outputs(task.test.fetch(torch.arange(1))).written[0][0]
    assert made.text == "The answer is 4." and "must have only numbers" in made.steps[1].prompt


def reversals(n=16, seed=0):
    draw = random.Random(seed)
    lists = [draw.sample(WORDS, draw.choice((2, 4, 8))) for _ in range(n)]
    return asking(
        [f"Reverse {json.dumps(words)}." for words in lists], [", ".join(words[::-1]) for words in lists], "reversals"
    )


def halves(match, sample=0):
    items = json.loads(match["items"])
    done = len(re.findall(r"^QS: .+$", match["done"], re.MULTILINE))
    half = len(items) // 2
    if len(items) == 1:
        return [f" [split] all of {json.dumps(items)}", " [EOQ]"][done]
    return [f" [split] 1 of {json.dumps(items)}", f" [split] 2 of {json.dumps(items)}", " [main] Reverse #2.",
            " [main] Reverse #1.", " (concat) #3 #4", " [EOQ]"][done] if half else ""  # fmt: skip


def split(match, sample=0):
    items = json.loads(match["items"])
    half = len(items) // 2
    return json.dumps({"all": items, "1": items[:half], "2": items[half:]}[match["part"]])


REVERSE = [
    (question(r"Reverse (?P<items>\[[^\n]*\])\."), halves),
    (r"(?s:.*)Q: (?P<part>all|1|2) of (?P<items>\[[^\n]*\])\nA:$", split),
]


def test_recursion_to_its_limit():
    task, settings = (
        reversals(),
        {"answer": "text", "prompts": {"split": ""}, "decomposers": {"main": ""}, "calls": 200},
    )
    source = scripted_source(
        [(r"Once more.\)\nQS:$", "[main] Reverse []."), *REVERSE, (r"A:$", "The answer is unknown.")]
    )
    metrics = rp.evaluate(rp.build("decomposed", source, task, depth=4, **settings), task.train)
    assert metrics.accuracy == 1.0  # eight items are four levels
    program = rp.build("decomposed", source, task, depth=3, **settings)
    rows = task.train.fetch(torch.arange(len(task.train)))
    ends = [row[0] for row in program.outputs(rows).written]
    sizes = [len(json.loads(text[8:-1])) for text in rows.columns["text"]]
    assert set(sizes) == {2, 4, 8}
    for end, size in zip(ends, sizes, strict=True):
        assert ("level 4 of decomposers" in end.reason) == (size == 8)
        assert (end.text == "The answer is unknown.") == (size == 8)


ONE = Task.from_texts(["How many?"] * 10, targets=["4"] * 10, name="one", val=0.2, test=0.2)


def ended(rules, task=ONE, **settings):
    program = rp.build("decomposed", scripted_source(rules), task, **settings)
    said = program.outputs(task.test.fetch(torch.arange(1)))
    return said.written[0][0], program.output.answers(said)[0]


PLAIN = (r"Q: How many\?\nA:$", " Two and two. The answer is 4.")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("I think 4", "must be"), ("[EOQ]", "before any answer"), ("[nobody] x", "no handler"),
        ("[qa] #1", "names none"),
        ("(explode) [qa] x", "operation"), ("(project) [qa] x", "a list"), ("(select_twice) [qa] x", "follows"),
        ("(join) 3", "a list"), ("[main] How many?", "the same again"), ("[calc] 2 +", "expression"), ("", "must be"),
        ("(project_keys) [qa] #1", "a list"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_used_is_named_and_then_given_up(line, reason):
    end, answer = ended([(r"QS:$", line), PLAIN])
    assert answer.value == "4" and reason in end.reason and "fell back" in end.reason
    assert len(end.steps) == 3 and f"{line}\n(This cannot be used:" in end.steps[1].prompt
    assert "Two and two" in end.text and "Q: A baker" in end.steps[2].prompt


def test_steps_and_budgets_end_a_conversation():
    end, answer = ended([(r"QS:$", "[calc] 2 + 2"), PLAIN])
    assert "not done after 10 steps" in end.reason and len(end.steps) == 11 and answer.value == "4"
    end, answer = ended([(r"QS:$", "[calc] 2 + 2"), PLAIN], calls=5)
    assert (end.finish, len(end.steps), answer.value) == ("budget", 5, None) and "5 calls" in answer.reason
    end, answer = ended([(r"QS:$", "[calc] 2 + 2"), PLAIN], budget_tokens=30)
    assert end.finish == "budget" and end.tokens <= 30 and answer.value is None
    grown = [(r"QC: [^\n]*\nQS:$", '[letters] "' + "ab" * 30 + '"'), (r"QS:$", "(concat) #1 #1"), PLAIN]
    end, answer = ended([(p, r.replace("#1 #1", "#2 #2 #1") if i == 1 else r) for i, (p, r) in enumerate(grown)])
    assert answer.value == "4" and "names none" in end.reason


def test_operations_on_lists_and_pairs():
    lines = ["[qa] list", "(project) [qa] twice #1", "(projectValues_values) [qa] twice #2",
             "(filter) [qa] is #3 large", "(projectKeys_keys_unique) [qa] name #2", "(sum) #4", "[EOQ]"]  # fmt: skip

    def write(match, sample):
        return lines[len(re.findall(r"^A: ", match[0].rpartition("QC:")[2], re.MULTILINE))]

    rules = [(r"(?s:.*)QS:$", write), (r"Q: list\nA:$", "[1, 2, 3]"),
             (r"Q: twice (\d+)\nA:$", lambda m, _: f"The answer is {2 * int(m[1])}."),
             (r"Q: is (\d+) large\nA:$", lambda m, _: "Yes." if int(m[1]) > 4 else "no"),
             (r"Q: name (\d+)\nA:$", "n")]  # fmt: skip
    end, answer = ended(rules)
    assert answer.value == "20" and end.reason == ""
    last = end.steps[-1].prompt
    assert "A: [[1, 2], [2, 4], [3, 6]]\n" in last and "A: [4, 8, 12]\n" in last
    assert "A: [8, 12]\n" in last and 'A: ["n"]\n' in last and "A: 20\n" in last


# -- retrieval in turns ------------------------------------------------------------------------------------------------

PEOPLE = ["Ada Berg", "Ivo Lind", "Mia Holm", "Leo Falk", "Eva Dahl", "Max Roth", "Ina Kern", "Jan Wolf"]
TOWNS = ["Arden", "Belmont", "Corvale", "Dunmore", "Elsford", "Farrow", "Glenby", "Harwick"]
LANDS = ["Norland", "Osmark", "Perovia", "Quillan", "Rosenia", "Sundria", "Tarkov", "Umbria"]


def world(seed=0):
    """Two hops: the land of the town where somebody was born. No passage names both person and land."""
    draw = random.Random(seed)
    towns, lands = draw.sample(TOWNS, 8), draw.sample(LANDS, 8)
    passages = [(p, f"{p} is a painter. {p} was born in {t}.") for p, t in zip(PEOPLE, towns, strict=True)]
    passages += [(t, f"{t} is an old town. It lies in {land}.") for t, land in zip(towns, lands, strict=True)]
    draw.shuffle(passages)
    rows = [f"In which land is the town where {p} was born?" for p in PEOPLE]
    return tuple(passages), asking(rows * 3, lands * 3, f"world {seed}")


def reason(match, sample=0):
    """The next sentence, from what the prompt shows after its demonstration, and from nothing else."""
    shown, person, said = match["shown"], match["person"], match["said"]
    born = re.search(rf"{person} was born in (\w+)\.", said)
    if not born:
        found = re.search(rf"{person} was born in (\w+)\.", shown)
        return f" {person} was born in {found[1]}. Then more." if found else " I do not know. The answer is: nothing."
    land = re.search(rf"Title: {born[1]}\n[^\n]*It lies in (\w+)\.", shown)
    return f" The answer is: {land[1]}." if land else " Nothing is known of it."


IRCOT = (
    r"Title: Hungary(?P<shown>.*)Q: In which land is the town where (?P<person>[\w ]+) was born\?\nA:(?P<said>.*)$",
    reason,
)


def reader(match, sample=0):
    match = {"shown": match["shown"], "person": match["person"], "said": ""}
    first = reason(match)
    second = reason({**match, "said": first})
    return first.partition(".")[0] + "." + second


@pytest.mark.parametrize("how", ["none", "cot", "direct"])
def test_retrieval_in_turns_finds_what_one_search_does_not(how):
    passages, task = world()
    script = [IRCOT]
    if how == "cot":  # the reader's prompt has no sentences, and so is answered in one go, as the first turn's is
        script = [
            (IRCOT[0], lambda m, _: reader(m) if m["said"] == "" and m["shown"].count("Title") > 1 else reason(m))
        ]
    if how == "direct":
        direct = r"A: the Danube\n" + IRCOT[0].removeprefix("Title: Hungary")
        script = [(direct, lambda m, _: reader(m).rpartition(": ")[2]), IRCOT]
    source = scripted_source(script)
    settings = {"passages": passages, "k": 2, "reader": how}
    program = rp.build("ircot", source, task, **settings)
    metrics = rp.evaluate(program, task.test)
    assert metrics.accuracy == 1.0 and metrics.unparsable == 0.0
    if how == "none":
        once = rp.evaluate(rp.build("ircot", source, task, sentences=1, **settings), task.test)
        assert once.accuracy < 0.5  # with what one search found, which is luck
        prompts = [step.prompt for step in program.outputs(task.test.fetch(torch.arange(1))).written[0][0].steps]
        shared = prompts[0].rpartition("Q: ")[0]
        assert len(prompts) == 2 and prompts[1].startswith(shared) and prompts[1].count("Title:") == 5


def test_turns_are_limited_and_passages_too():
    passages, task = world(1)
    passages += (*((f"{title} ", text + " ") for title, text in passages), ("Ada Berg", "born " * 700))
    source = scripted_source(
        [
            (r"A:[^\n]*$", " Painters paint towns. More."),
        ]
    )
    program = rp.build("ircot", source, task, passages=passages, sentences=3, most=5, k=4, reader="none")
    end = program.outputs(task.test.fetch(torch.arange(1))).written[0][0]
    assert len(end.steps) == 3 and end.text == " ".join(["Painters paint towns."] * 3)
    last = end.steps[-1].prompt.partition("Title: Hungary")[2]
    titles = re.findall(r"Title: ([^\n]*)", last)
    assert len(titles) == len({t.strip() for t in titles}) <= 5 and "born born" not in last
    silent = scripted_source([(r"A:$", "")])
    made = rp.build("ircot", silent, task, passages=passages, reader="none")
    assert rp.evaluate(made, task.test).unparsable == 1.0


def test_a_program_finds_the_same_passages_when_it_is_built_again(tmp_path):
    passages, task = world(2)
    lines = [json.dumps({"title": title, "text": text}) for title, text in passages]
    corpus = tmp_path / "world.jsonl"
    corpus.write_text("\n".join(lines))
    source = scripted_source([IRCOT])
    program = rp.build("ircot", source, task, corpus=str(corpus), k=2, reader="none")
    assert rp.evaluate(program, task.test).accuracy == 1.0
    rp.save(program, tmp_path / "ircot.safetensors")
    x = [task.test.fetch(torch.arange(2)).columns["text"][i] for i in range(2)]
    assert rp.load(tmp_path / "ircot.safetensors", source=source).predict(x).labels == program.predict(x).labels
    corpus.write_text("\n".join(lines[1:]))
    with pytest.raises(DataError, match="built with"):
        rp.load(tmp_path / "ircot.safetensors", source=source)
    with pytest.raises(ConfigError, match="one of the two"):
        rp.build("ircot", source, task)


def test_descriptions_alone_suffice_where_no_data_are_shown():
    spec = TaskSpec(name="t", classes=(), sample=opinions().spec.sample, modality="text")
    source = scripted_source([("", "The answer is 7.")])
    for name in ("chain_of_thought", "self_consistency", "zero_shot_cot"):
        assert rp.build(name, source, spec).predict(["x"]).answers[0].value == "7"


def test_the_prompt_can_be_shown_with_the_edits_before_the_examples_applied():
    """A chain of thought words the question before its examples are put there: what is shown is what is sent."""
    source, task = scripted_source([(LAST + "$", solved)]), sums()
    program = rp.build("chain_of_thought", source, task, demonstrations="train", shots=3)
    rows = Texts(task.test.fetch(torch.arange(2)).columns)
    shown = demonstrated(program.input, rows)
    assert shown is not None
    assert [one.prompt for one in shown] == list(program.input(rows, "input").prompts)
    assert all(len(one.examples) == 3 for one in shown)
