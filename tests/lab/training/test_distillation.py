import dataclasses
import math

import pytest
import torch
from safetensors.torch import load_file

from maxsup.lab import records
from maxsup.lab.analysis.weights import load_model, trained_recipe
from maxsup.lab.data import load
from maxsup.lab.models import Classifier, ConvNet
from maxsup.lab.recipes import Data
from maxsup.lab.recipes.distillation import student
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import RecordError
from maxsup.lab.train import train
from maxsup.lab.training.distillation import DistillationLoss, Teacher, load_teacher, teacher_run

TINY = dataclasses.replace(digits_convnet(), epochs=3, data=Data(name="digits", train_size=200, pad_crop=1))


def test_the_loss_of_a_worked_example():
    # Student q = (2/3, 1/3), teacher p = (8/9, 1/9) at T = 1; at T = 3 their logits ln 2 and 3 ln 2 become thirds.
    logits = torch.tensor([[math.log(2), 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[3 * math.log(2), 0.0]], dtype=torch.float64)
    target = torch.tensor([1])
    cross_entropy = math.log(3)
    p = 8 / 9
    at_one = p * math.log(p * 3 / 2) + (1 - p) * math.log((1 - p) * 3)
    loss = DistillationLoss(1.0, 0.25)(logits, target, teacher)
    assert loss.item() == pytest.approx(0.75 * cross_entropy + 0.25 * at_one)
    q = 2 ** (1 / 3) / (1 + 2 ** (1 / 3))
    p = 2 / 3
    at_three = 9 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert DistillationLoss(3.0, 1.0)(logits, target, teacher).item() == pytest.approx(at_three)


def test_the_gradient_is_the_students_alone_and_tends_to_that_of_the_logits_differences():
    # Hinton et al. 2015, Eq. 4: for high temperatures, zero-mean logits and T², the gradient is (z - t) / K.
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(1, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    logits, teacher = ((of - of.mean()).requires_grad_() for of in (logits, teacher))
    DistillationLoss(1e4, 1.0)(logits, torch.tensor([0]), teacher).backward()
    torch.testing.assert_close(logits.grad, (logits - teacher).detach() / 5, rtol=1e-3, atol=1e-5)
    assert teacher.grad is None


def test_a_teacher_normalises_by_its_own_constants_and_stays_in_evaluation_mode():
    torch.manual_seed(0)
    model = Classifier(ConvNet(1, 3), torch.tensor([[[0.2]]]), torch.tensor([[[0.5]]]))
    mean, std = torch.tensor([[[0.4]]]), torch.tensor([[[0.3]]])
    teacher = Teacher(model, mean, std).train()
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(teacher(images), expected)
    torch.testing.assert_close(teacher((images / 255 - mean) / std), expected, rtol=1e-4, atol=1e-5)
    assert not model.training
    assert not any(weight.requires_grad for weight in teacher.parameters())


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("teachers")
    for method in ("cross-entropy", "max-sup"):
        train(TINY, method, 0, directory / method)
    return directory


def pupil(teachers, weight=0.5, **changes):
    recipe = dataclasses.replace(TINY, **changes)
    return student(recipe, 2.0, weight, (str(teachers / "cross-entropy"), str(teachers / "max-sup")))


def test_a_student_learns_from_the_teacher_of_its_method_and_seed(teachers, tmp_path):
    recipe = pupil(teachers, epochs=1)
    of = {}
    for method in ("distilled-from-cross-entropy", "distilled-from-max-sup", "cross-entropy"):
        train(recipe, method, 0, tmp_path / method)
        of[method] = load_file(tmp_path / method / "model.safetensors")["backbone.fc.weight"]
    assert not torch.equal(of["distilled-from-cross-entropy"], of["distilled-from-max-sup"])
    info = records.read_json(tmp_path / "distilled-from-max-sup/run.json")
    measured = records.read_json(teachers / "max-sup/result.json")["measures"]["test"]
    assert (info["teacher"]["method"], info["teacher"]["seed"]) == ("max-sup", 0)
    assert info["teacher"]["test_accuracy"] == measured["accuracy"]
    assert info["recipe"]["temperature"] == 2.0
    assert "teacher" not in records.read_json(tmp_path / "cross-entropy/run.json")
    assert records.read_json_lines(tmp_path / "distilled-from-max-sup/metrics.jsonl")[0]["alpha"] is None


def test_with_weight_zero_a_student_is_trained_as_without_a_teacher(teachers, tmp_path):
    with_teacher = train(pupil(teachers, weight=0.0), "distilled-from-max-sup", 0, tmp_path / "with")
    without = train(TINY, "cross-entropy", 0, tmp_path / "without")
    assert with_teacher["measures"] == without["measures"]


def test_the_loss_of_the_first_epoch_is_that_of_the_teachers_logits_on_the_same_images(teachers, tmp_path):
    # A batch of all 200 images at once, and no augmentation: the first epoch's loss is that of the new network.
    still = Data(name="digits", train_size=200)
    recipe = dataclasses.replace(pupil(teachers, epochs=1), batch_size=200, data=still)
    train(recipe, "distilled-from-max-sup", 0, tmp_path)
    from maxsup.lab.processes import start
    from maxsup.lab.training.run import building

    data = load(still)
    taught = load_teacher(teacher_run(recipe, "distilled-from-max-sup", 0), recipe, data)
    with building(recipe, "distilled-from-max-sup", 0, data, start(), taught) as run, torch.no_grad():
        logits = run.model.train()(data.train.images)
    theirs = load_model(teachers / "max-sup")(data.train.images)
    expected = DistillationLoss(2.0, 0.5)(logits, data.train.labels, theirs)
    (row,) = records.read_json_lines(tmp_path / "metrics.jsonl")
    assert row["train_loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_a_resumed_student_equals_an_uninterrupted_one(teachers, tmp_path):
    whole = train(pupil(teachers), "distilled-from-max-sup", 0, tmp_path / "whole")

    def interrupt(row):
        if row["epoch"] == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(pupil(teachers), "distilled-from-max-sup", 0, tmp_path / "broken", on_epoch=interrupt)
    seen = []
    resumed = train(pupil(teachers), "distilled-from-max-sup", 0, tmp_path / "broken", on_epoch=seen.append)
    assert [row["epoch"] for row in seen] == [1, 2]
    assert resumed["measures"] == whole["measures"]


def test_a_student_does_not_go_on_with_another_teacher(teachers, tmp_path):
    import shutil

    own = shutil.copytree(teachers, tmp_path / "teachers")

    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(pupil(own), "distilled-from-max-sup", 0, tmp_path / "run", on_epoch=interrupt)
    shutil.copy(own / "cross-entropy/model.safetensors", own / "max-sup/model.safetensors")
    with pytest.raises(RecordError, match="are not those it began with"):
        train(pupil(own), "distilled-from-max-sup", 0, tmp_path / "run")


def test_students_without_a_fitting_teacher_are_refused(teachers, tmp_path):
    with pytest.raises(ValueError, match="'distilled-from-max-sup' needs a teacher, which `maxsup distill` gives it"):
        train(TINY, "distilled-from-max-sup", 0, tmp_path / "a")
    with pytest.raises(ValueError, match="no finished teacher for 'distilled-from-max-sup', seed 5, in "):
        train(pupil(teachers), "distilled-from-max-sup", 5, tmp_path / "b")
    smaller = pupil(teachers, data=Data("digits", classes=(0, 1)))
    with pytest.raises(ValueError, match=r"the teacher's data\.classes is None, the student's \(0, 1\)"):
        train(smaller, "distilled-from-max-sup", 0, tmp_path / "c")
    for values, message in (
        ((0.0, 0.5, ("x",)), "temperature must be a finite number above 0, got 0"),
        ((1.0, 1.5, ("x",)), r"weight must be from 0 to 1, got 1\.5"),
        ((1.0, 0.5, ()), "teachers must name at least one folder"),
    ):
        with pytest.raises(ValueError, match=message):
            student(TINY, *values)


def test_a_recorded_recipe_is_read_back(teachers):
    assert trained_recipe(teachers / "max-sup") == TINY


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_with_a_teacher_gives_the_eager_numbers_bit_by_bit():
    from maxsup.lab.training.graph import EAGER_STEPS
    from maxsup.lab.training.step import Step

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=generator).cuda()
    labels, weight = torch.arange(6, device="cuda") % 3, torch.tensor(1.0, device="cuda")
    mean, std = torch.tensor([[[0.4]]]), torch.tensor([[[0.3]]])
    runs = []
    for graph in (False, True):
        torch.manual_seed(1)
        teacher = Teacher(Classifier(ConvNet(1, 3), mean, std), mean, std).cuda()
        model, loss = Classifier(ConvNet(1, 3), mean, std).cuda(), DistillationLoss(2.0, 0.5)
        step = Step(model, loss, precision="bfloat16", full_size=6, teacher=teacher, graph=graph)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        totals = []
        for place in range(EAGER_STEPS + 3):
            totals.append(step(images.roll(place, 0), labels, weight).clone())
            optimizer.step()
            optimizer.zero_grad()
        runs.append((torch.stack(totals), torch.cat([p.detach().flatten() for p in model.parameters()])))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
