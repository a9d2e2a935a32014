import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from maxsup.lab import models, recipes
from maxsup.lab.models import Classifier
from maxsup.lab.segmentation.model import Segmenter
from maxsup.lab.segmentation.objective import batch_loss, loss_function
from maxsup.lab.segmentation.recipes import Decoder
from maxsup.lab.training.in_order import bilinear, in_order
from maxsup.lab.training.reproducible import reproducible

SIZES = [((8, 8), (64, 64)), ((7, 11), (13, 5)), ((3, 3), 8), ((16, 12), (8, 6)), ((1, 2), (8, 8)), ((5, 5), (5, 5))]


class Names(TorchDispatchMode):
    """The names of the operations that PyTorch carries out."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def maps(size, dtype, last):
    x = torch.randn(2, 5, *size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return x.to(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()


def with_gradient(function, x):
    y = function(x)
    upstream = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)
    return y.detach(), torch.autograd.grad(y, x, upstream)[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("size", "new"), SIZES)
def test_scaling_is_pytorchs(size, new, dtype, last):
    x = maps(size, dtype, last)
    expected = with_gradient(lambda x: functional.interpolate(x, new, mode="bilinear", align_corners=False), x)
    found = with_gradient(lambda x: bilinear(x, new), x)
    # In bfloat16 a value is rounded once, as there: the few that differ lie between two of its numbers.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 2**-7}[dtype]
    assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("side", [1, 2, 3, 6, (2, 5), (None, 4)])
def test_pooling_is_pytorchs_beyond_the_size_of_the_map_too(side, dtype, last):
    for size in ((7, 11), (2, 3), (6, 6)):
        x = maps(size, dtype, last)
        expected = with_gradient(nn.AdaptiveAvgPool2d(side), x)
        with in_order():
            found = with_gradient(nn.AdaptiveAvgPool2d(side), x)
        assert_close(found, expected)


def test_what_it_keeps_of_a_test_keeps_no_training_from_its_gradient():
    x = maps((9, 9), torch.float32, True)
    with torch.inference_mode():
        bilinear(x, 17)
    with_gradient(lambda x: bilinear(x, 17), x)


def test_other_calls_are_left_to_pytorch():
    x = maps((4, 4), torch.float32, False).detach()
    calls = [
        lambda: functional.interpolate(x, (7, 7)),
        lambda: functional.interpolate(x, (7, 7), mode="bilinear", align_corners=True),
        lambda: functional.interpolate(x, (2, 3), mode="bilinear", antialias=True),
        lambda: functional.interpolate(x, scale_factor=1.5, mode="bilinear"),
        lambda: functional.interpolate(x, (7, 7), None, "bicubic"),
        lambda: functional.interpolate(x[0], 7, mode="linear"),
        lambda: functional.interpolate((100 * x).abs().byte(), (7, 7), mode="bilinear"),
        lambda: functional.interpolate(x, (3, 2), mode="area"),
        lambda: functional.adaptive_avg_pool2d(x[0], (2, 3)),
    ]
    for call in calls:
        expected = call()
        with in_order():
            assert_close(call(), expected)
    for wrong in ({"size": (0, 3)}, {"size": (2, 3, 4)}, {}):
        with in_order(), pytest.raises((RuntimeError, ValueError)):
            functional.interpolate(x, **wrong, mode="bilinear")


def test_pytorchs_functions_come_back():
    before = functional.interpolate, functional.adaptive_avg_pool2d
    with pytest.raises(KeyError, match="True"), in_order():
        raise KeyError(functional.interpolate is not before[0])
    assert (functional.interpolate, functional.adaptive_avg_pool2d) == before


@pytest.mark.parametrize(
    "model",
    [
        recipes.Model("resnet18", small_stem=True),
        recipes.Model("deit_tiny_patch16_224", image_size=32, patch_size=4, depth=4),
    ],
)
def test_a_segmentation_step_with_deterministic_kernels_scales_and_pools_by_products(model):
    torch.manual_seed(0)
    classifier = Classifier(models.build(model, 1, 10, any_size=True), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    network = Segmenter(classifier, 5, (32, 32), Decoder(16, 8, dropout=0.0)).double()
    images = torch.randint(0, 256, (2, 1, 32, 32)).byte()
    labels = torch.randint(0, 5, (2, 40, 40)).byte()
    adding = {"upsample_bilinear2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d"}

    def step():
        with Names() as names:
            loss = batch_loss(loss_function("cross-entropy", 0.1), network(images), labels, 0.4)
            gradients = torch.autograd.grad(loss, tuple(network.parameters()))
        return names.found & (adding | {f"{name}_backward" for name in adding}), loss.detach(), gradients

    state = {name: value.clone() for name, value in network.state_dict().items()}
    plain, *expected = step()
    assert plain >= {"upsample_bilinear2d_backward", "_adaptive_avg_pool2d_backward"}
    network.load_state_dict(state)  # running statistics
    with reproducible(torch.device("cuda"), "all"):
        ordered, *found = step()
    assert ordered == set()
    # The loss computes in float32.
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("error:.*deterministic")
def test_on_a_gpu_gradients_repeat_to_the_bit():
    x = maps((16, 16), torch.bfloat16, True).detach().repeat(32, 8, 1, 1).cuda().requires_grad_()
    pool = nn.AdaptiveAvgPool2d(6)

    def both(x):
        six = pool(x) + functional.interpolate(x, (6, 6), mode="bilinear")
        return functional.interpolate(six, (64, 64), mode="bilinear")

    with reproducible(x.device, "all"):
        first, second = (with_gradient(both, x) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    # In bfloat16 PyTorch's gradient adds hundreds of pixels in it: this is nearer to float32's.
    expected = with_gradient(both, x.detach().float().requires_grad_())
    assert_close(tuple(of.float() for of in first), expected, rtol=0.05, atol=0.3)
