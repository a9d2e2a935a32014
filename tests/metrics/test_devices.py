import pytest
import torch

from maxsup import metrics


def measures(device):
    """Every measure, of the same data on the given device."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(500) % 6
    features = torch.randn(500, 16, generator=generator) + 2 * torch.randn(6, 16, generator=generator)[labels]
    weight = torch.randn(6, 16, generator=generator)
    logits = features @ weight.T
    confidence, correct = logits.amax(1).round(), logits.argmax(1) == labels
    cam, mask = torch.rand(8, 7, 7, generator=generator), torch.rand(8, 7, 7, generator=generator) < 0.4
    state, other = metrics.NeuralCollapse(6), metrics.NeuralCollapse(6)
    other.update(features[200:], labels[200:])  # from the CPU, as after a gather
    labels, features, weight, logits, confidence, correct, cam, mask = (
        tensor.to(device) for tensor in (labels, features, weight, logits, confidence, correct, cam, mask)
    )
    state.update(features[:200], labels[:200])
    state.merge(other)
    tensors = [
        *metrics.class_separation(features, labels),
        metrics.variability_collapse_index(features, labels),
        state.variability_collapse_index(),
        *metrics.neural_collapse(features, labels, weight, logits),
        metrics.brier(logits, labels),
        *metrics.reliability(logits, labels),
        metrics.expected_calibration_error(logits, labels),
        metrics.expected_calibration_error(logits, labels, adaptive=True),
        *metrics.risk_coverage(confidence, correct),
        metrics.aurc(confidence, correct),
        metrics.coverage_at_risk(confidence, correct, 0.2),
        metrics.max_probability(logits),
        metrics.logit_normalization(logits, 3),
        *metrics.error_enhancement_share(logits, labels),
        *metrics.localization(cam, mask),
    ]
    assert {tensor.device.type for tensor in tensors} == {device}
    numbers = [*metrics.fit_temperature(logits, labels), metrics.choose_p(logits, labels)]
    return [tensor.cpu().double() for tensor in tensors] + [torch.tensor(number) for number in numbers]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    torch.testing.assert_close(measures("cuda"), measures("cpu"), rtol=1e-6, atol=1e-7, equal_nan=True)


def test_results_stay_on_their_device_and_parts_equal_the_whole():
    values = measures("cpu")
    assert values[3].item() == pytest.approx(values[4].item(), rel=1e-9)
