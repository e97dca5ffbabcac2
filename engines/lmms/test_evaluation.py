"""lmms-eval's evaluator asks nano about data in the schemas of the benchmarks, and says what `omnivinci eval` says."""

import pytest

from engines.lmms.local_data import MAKERS
from engines.lmms.run import answers_of, run_omnivinci_eval, score_with_sound_first
from transformers_omnivinci import NANO
from transformers_omnivinci.evaluation.asking import answer


@pytest.fixture(scope="module")
def nano():
    from transformers import AutoModel, AutoProcessor

    return AutoModel.from_pretrained(NANO).eval(), AutoProcessor.from_pretrained(NANO)


@pytest.mark.parametrize("name", MAKERS)
def test_answers_are_those_that_the_model_gives_alone(name, task_of, results_of, nano):
    task = task_of(name)
    given = [answer(*nano, [chat], max_new_tokens=32)[0] for chat in task.chats]
    assert answers_of(results_of(name), task) == given


@pytest.mark.parametrize("name", MAKERS)
def test_scores_are_those_of_omnivinci_eval(name, task_of, results_of, nano, tmp_path):
    task = task_of(name)
    value = results_of(name)["results"][task.name][task.metric]
    value = value if name == "DailyOmni" else value / 100  # the tasks of lmms-eval give percent
    scores = score_with_sound_first(task, *nano) if name == "OmniBench" else run_omnivinci_eval(task, tmp_path)
    share = scores["all"]
    print(f"\n{name}: {len(task.chats)} questions, lmms-eval {value:.4f}, omnivinci eval {share:.4f}")
    assert value == pytest.approx(share, abs=1e-6)
    assert 0 < share < 1


def test_daily_omni_is_scored_by_groups(task_of, results_of, tmp_path):
    task = task_of("DailyOmni")
    scores, found = run_omnivinci_eval(task, tmp_path), results_of("DailyOmni")["results"][task.name]
    assert found["accuracy_by_type,none"] == {
        name.removeprefix("Type = "): pytest.approx(value) for name, value in scores.items() if name != "all"
    }
    assert found["accuracy_by_duration,none"].keys() == {"30s", "60s"}
    assert len(found["accuracy_by_category,none"]) == 4
