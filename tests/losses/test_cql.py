"""The conservative term, worked by hand and against its definition."""

import math

import torch
from torch import tensor
from torch.autograd import gradcheck

from dr3_ray.losses import cql


def test_discrete_gap_and_its_gradient():
    # log(e^0 + e^log3) − Q(s, a) = log 4 − 0 and log 4 − log 3; the gradient is softmax − onehot
    q = tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]], requires_grad=True)
    gap = cql.discrete_gap(q, tensor([0, 1]))
    torch.testing.assert_close(gap, tensor([math.log(4.0), math.log(4.0 / 3.0)]))
    gap.sum().backward()
    torch.testing.assert_close(q.grad, tensor([[-0.75, 0.75], [0.25, -0.25]]))


def test_continuous_gap_weighs_samples_by_their_density():
    # two samples with densities 2 and ½: log(e^log4 / 2 + e^log3 / ½) − 1 = log(2 + 6) − 1;
    # the gradients are the shares 2/8 and 6/8, and −1 for the data's action
    sampled_q = tensor([[[math.log(4.0), math.log(3.0)]]], requires_grad=True)
    log_density = tensor([[[math.log(2.0), math.log(0.5)]]], requires_grad=True)
    data_q = tensor([[1.0]], requires_grad=True)
    gap = cql.continuous_gap(sampled_q, log_density, data_q, 1.0)
    torch.testing.assert_close(gap, tensor([[math.log(8.0) - 1.0]]))
    gap.sum().backward()
    torch.testing.assert_close(sampled_q.grad, tensor([[[0.25, 0.75]]]))
    torch.testing.assert_close(data_q.grad, tensor([[-1.0]]))
    assert log_density.grad is None


def test_continuous_gap_at_a_temperature():
    # T = 2: 2 log(e^{log4 / 2} + e^{log9 / 2}) − 0 = 2 log(2 + 3); T cancels in the gradients, the shares 2/5 and 3/5
    sampled_q, none = tensor([[[math.log(4.0), math.log(9.0)]]], requires_grad=True), torch.zeros(1, 1, 2)
    gap = cql.continuous_gap(sampled_q, none, torch.zeros(1, 1), 2.0)
    torch.testing.assert_close(gap, tensor([[2.0 * math.log(5.0)]]))
    gap.sum().backward()
    torch.testing.assert_close(sampled_q.grad, tensor([[[0.4, 0.6]]]))


def test_continuous_gap_with_a_temperature_for_each_member():
    torch.manual_seed(0)
    q, density, data_q = torch.randn(2, 3, 4, 5), torch.randn(2, 1, 4, 5), torch.randn(2, 3, 4)
    together = cql.continuous_gap(q, density, data_q, tensor([0.5, 2.0]).view(-1, 1, 1, 1))
    for member, temperature in enumerate((0.5, 2.0)):
        alone = cql.continuous_gap(q[member], density[member], data_q[member], temperature)
        torch.testing.assert_close(together[member], alone)


def test_calibrated_values_and_their_gradient():
    # max(Q, G), in two states with the returns 1 and −2: where the return is larger, Q has no gradient
    q = tensor([[[0.0, 3.0], [-1.0, -5.0]]], requires_grad=True)
    found = cql.calibrated(q, tensor([[1.0, -2.0]]))
    torch.testing.assert_close(found, tensor([[[1.0, 3.0], [-1.0, -2.0]]]))
    found.sum().backward()
    torch.testing.assert_close(q.grad, tensor([[[0.0, 1.0], [1.0, 0.0]]]))


def test_importance_weights_estimate_the_integral():
    # Q(a) = a on [−1, 1]: ∫ e^a da = e − 1/e, estimated by samples of the uniform and of the triangular density
    # (1 + a) / 2; the sum is not divided by the number of samples, so log N is taken off here
    torch.manual_seed(0)
    n = 400_000
    uniform = torch.rand(n, dtype=torch.float64) * 2.0 - 1.0
    triangular = 2.0 * torch.rand(n, dtype=torch.float64).sqrt() - 1.0
    flat = torch.full((n,), cql.uniform_log_density(1), dtype=torch.float64)
    for samples, log_density in ((uniform, flat), (triangular, ((1.0 + triangular) / 2.0).log())):
        gap = cql.continuous_gap(samples[None, None], log_density[None, None], torch.zeros(1, 1).double(), 1.0)
        assert abs(gap.item() - math.log(n) - math.log(math.e - 1.0 / math.e)) < 0.01


def test_rho_gap_and_its_gradient():
    # softmax(0, log 3) = (¼, ¾): ¾ log 3 − 1; the weights have no gradient
    sampled_q = tensor([[0.0, math.log(3.0)]], requires_grad=True)
    data_q = tensor([1.0], requires_grad=True)
    gap = cql.rho_gap(sampled_q, data_q, 1.0)
    torch.testing.assert_close(gap, tensor([0.75 * math.log(3.0) - 1.0]))
    gap.sum().backward()
    torch.testing.assert_close(sampled_q.grad, tensor([[0.25, 0.75]]))
    torch.testing.assert_close(data_q.grad, tensor([-1.0]))
    halved = cql.rho_gap(sampled_q.detach() * 2.0, tensor([0.0]), 2.0)
    torch.testing.assert_close(halved, tensor([1.5 * math.log(3.0)]))


def test_the_two_orders_of_max_backup():
    # critics (3, 0, 2) and (1, 4, 2): the best of each are 3 and 4, the smaller one at 0; the minima are (1, 0, 2)
    q = tensor([[3.0, 0.0, 2.0], [1.0, 4.0, 2.0]]).view(1, 2, 1, 3)
    assert [each.item() for each in cql.max_then_min(q)] == [3.0, 0]
    assert [each.item() for each in cql.min_then_max(q)] == [2.0, 2]
    assert [each.item() for each in cql.max_then_min(q.flip(1))] == [3.0, 0]
    # the gradient is that of the one entry which is the value
    for backup, entry in (
        (cql.max_then_min, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        (cql.min_then_max, [[0.0, 0.0, 0.5], [0.0, 0.0, 0.5]]),  # both critics say 2 of the last action and share it
    ):
        leaf = q.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(backup(leaf)[0].sum(), leaf)
        assert gradient[0, :, 0].tolist() == entry


def test_uniform_log_density():
    assert cql.uniform_log_density(3) == 3 * math.log(0.5)


def test_gradients_against_finite_differences():
    torch.manual_seed(0)
    q = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    data_q = torch.randn(3, dtype=torch.float64, requires_grad=True)
    density = torch.randn(3, 4, dtype=torch.float64)
    assert gradcheck(lambda q: cql.discrete_gap(q, tensor([0, 3, 1])), (q,))
    assert gradcheck(lambda q, data_q: cql.continuous_gap(q, density, data_q, 0.7), (q, data_q))
