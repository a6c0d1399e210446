"""DQN + CQL + DR3 as one writes it by hand: an ordinary `torch.nn.Module`, Adam, columns in memory (of the device)."""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from turns import asked, take_turns

GAMMA, CQL_ALPHA, LR, EPS, PERIOD = 0.99, 0.1, 5e-5, 3.125e-4, 2000  # the defaults of DR3-CQL

torch.set_num_threads(1)
case = asked()
device = case.get("device", "cpu")
columns = {name: torch.from_numpy(column).to(device) for name, column in np.load(case["columns"]).items()}
names = ("observations", "actions", "rewards", "next_observations", "terminateds")
images = columns["observations"].dtype == torch.uint8
if images:  # channels first, as replay buffers of Atari frames have them
    for name in ("observations", "next_observations"):
        columns[name] = columns[name].permute(0, 3, 1, 2).contiguous()


class Network(nn.Module):
    """Q(s, ·) and the features before it."""

    def __init__(self, shape: torch.Size, hidden_sizes: list[int], n_actions: int):
        super().__init__()
        layers: list[nn.Module] = []
        if images:
            for c_in, c_out, size, stride in ((shape[0], 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)):
                layers += [nn.Conv2d(c_in, c_out, size, stride), nn.ReLU()]
        layers.append(nn.Flatten())
        for width in hidden_sizes:
            layers += [nn.LazyLinear(width), nn.ReLU()]
        self.encoder, self.head = nn.Sequential(*layers), nn.LazyLinear(n_actions)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        if images:
            observations = observations.float() / 255.0
        phi = self.encoder(observations)
        return self.head(phi), phi


network = Network(columns["observations"].shape[1:], case["options"]["hidden_sizes"], int(columns["actions"].max()) + 1)
network = network.to(device)
network(columns["observations"][:2])  # sizes the layers
target = copy.deepcopy(network)
optimizer = torch.optim.Adam(network.parameters(), lr=LR, eps=EPS, fused=case["fused"])
steps = 0


def update(n: int) -> None:
    global steps
    for _ in range(n):
        rows = torch.randint(len(columns["rewards"]), (case["options"]["batch_size"],), device=device)
        s, a, r, next_s, terminated = (columns[name].index_select(0, rows) for name in names)
        q, phi = network(s)
        with torch.no_grad():
            y = r + GAMMA * (1.0 - terminated) * target(next_s)[0].amax(-1)
        q_a = q.gather(1, a.unsqueeze(1)).squeeze(1)
        loss = functional.smooth_l1_loss(q_a, y) + CQL_ALPHA * (q.logsumexp(-1) - q_a).mean()
        if case["dr3_coeff"]:
            alive, (_, next_phi) = 1.0 - terminated, network(next_s)
            loss = loss + case["dr3_coeff"] * ((phi * next_phi).sum(-1) * alive).sum() / alive.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps % PERIOD == 0:
            target.load_state_dict(network.state_dict())
    if device == "cuda":
        torch.cuda.synchronize()


take_turns(update)
