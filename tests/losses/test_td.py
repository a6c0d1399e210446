"""Bellman targets and errors, worked by hand."""

import jaxtyping
import pytest
import torch
from torch import tensor

from dr3_ray.losses import td


def test_bellman_target_bootstraps_after_truncation_and_not_after_termination():
    # an ordinary step, the last step of a truncated episode, and the last step of a terminated one: only
    # `terminateds` enters, so the second row bootstraps like the first: 1 + 0.9 · 10 = 10, 2 + 0.9 · 20 = 20, 3
    target = td.bellman_target(tensor([1.0, 2.0, 3.0]), tensor([0.0, 0.0, 1.0]), tensor([10.0, 20.0, 30.0]), 0.9)
    torch.testing.assert_close(target, tensor([10.0, 20.0, 3.0]))


def test_bellman_target_has_a_discount_for_each_member_and_no_gradient():
    values = tensor([[10.0, 20.0], [10.0, 20.0]], requires_grad=True)
    target = td.bellman_target(torch.ones(2, 2), torch.zeros(2, 2), values, tensor([[0.5], [0.9]]))
    torch.testing.assert_close(target, tensor([[6.0, 11.0], [10.0, 19.0]]))
    assert not target.requires_grad


def test_value_of_picks_the_action_and_its_gradient():
    q = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    picked = td.value_of(q, tensor([2, 0]))
    assert picked.tolist() == [3.0, 4.0]
    picked.sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_value_of_broadcasts_actions_over_critics():
    q = torch.arange(12.0).reshape(1, 2, 2, 3)  # one member, two critics, two rows, three actions
    actions = tensor([[[1, 2]]])
    assert td.value_of(q, actions).tolist() == [[[1.0, 5.0], [7.0, 11.0]]]


def test_squared_error_and_its_gradient():
    values = tensor([1.0, 4.0], requires_grad=True)
    error = td.squared_error(values, tensor([3.0, 3.0]))
    assert error.tolist() == [4.0, 1.0]  # (1 − 3)², (4 − 3)², no ½
    error.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [-4.0, 2.0]  # 2 (Q − y)


def test_huber_and_its_gradient_on_both_sides_of_the_knee():
    values = tensor([0.5, 1.0, 3.0, -3.0], requires_grad=True)
    error = td.huber(values, torch.zeros(4))
    assert error.tolist() == [0.125, 0.5, 2.5, 2.5]  # ½ · ½², ½ · 1², 3 − ½, 3 − ½
    error.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 1.0, 1.0, -1.0]


def test_huber_broadcasts_targets_over_critics():
    error = td.huber(tensor([[[1.0], [2.0]]]), tensor([[[0.0]]]))
    assert error.tolist() == [[[0.5], [1.5]]]


def test_mean_over_batch_never_mixes_members():
    rows = tensor([[1.0, 3.0], [10.0, 30.0]], requires_grad=True)
    mean = td.mean_over_batch(rows)
    assert mean.tolist() == [2.0, 20.0]
    mean[1].backward()
    assert rows.grad is not None and rows.grad.tolist() == [[0.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masked_mean_and_its_gradient(dtype: torch.dtype):
    rows = tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]], requires_grad=True)
    mean = td.masked_mean(rows, tensor([[1, 0, 1], [0, 0, 0]]).to(dtype))
    assert mean.tolist() == [3.5, 0.0]  # (1 + 6) / 2; an empty mask gives 0, not NaN
    mean.sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]


def test_a_wrong_shape_raises():
    with pytest.raises(jaxtyping.TypeCheckError):
        td.value_of(torch.zeros(2, 3), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(jaxtyping.TypeCheckError):
        td.bellman_target(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1, 3), 0.9)
    with pytest.raises(jaxtyping.TypeCheckError):
        td.value_of(torch.zeros(2, 3), torch.zeros(2))  # actions have to be integers


def test_expected_values_by_hand():
    q_values = tensor([[1.0, 3.0, 5.0], [2.0, 0.0, -2.0]], requires_grad=True)
    probabilities = tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], requires_grad=True)
    values = td.expected_value(q_values, probabilities)
    torch.testing.assert_close(values, tensor([2.5, -2.0]))
    values.sum().backward()
    torch.testing.assert_close(q_values.grad, probabilities.detach())
    torch.testing.assert_close(probabilities.grad, q_values.detach())


def test_n_step_returns_by_hand():
    rewards = tensor([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 0.0]]], requires_grad=True)
    returns = td.n_step_return(rewards, tensor([[0.5], [0.1]]))
    torch.testing.assert_close(returns, tensor([[2.75], [1.2]]))
    returns.sum().backward()
    torch.testing.assert_close(rewards.grad, tensor([[[1.0, 0.5, 0.25]], [[1.0, 0.1, 0.01]]]))  # powers of γ
    torch.testing.assert_close(td.n_step_return(rewards[0], 1.0), tensor([6.0]))
    torch.testing.assert_close(td.n_step_return(rewards[0], 0.0), tensor([1.0]))
