"""The PyTorch side of `benchmarks.train_step`, run by an environment with torch and torchvision.

It reads lines of JSON, {"precision": "float32" or "bfloat16", "channels_last": true or false}, and
answers each with a line {"seconds": of one training step, "flops": of it}. Of torchvision only the
model's Python code is used: its compiled operations, which that model does not call, may be absent.
"""

import json
import sys
import time
import types

import torch
from torch.utils.flop_counter import FlopCounterMode

BATCH, FRAMES, SIZE, CLASSES = 4, 16, 112, 400


def load_model_code():
    """torchvision's r2plus1d_18, whether or not its compiled operations fit this torch."""
    try:
        from torchvision.models.video import r2plus1d_18
    except (ImportError, RuntimeError, OSError):
        for name in [x for x in sys.modules if x.startswith("torchvision")]:
            del sys.modules[name]
        extension = types.ModuleType("torchvision.extension")
        extension._HAS_OPS = False
        extension._has_ops = lambda: False
        extension._assert_has_ops = extension._load_library = lambda *args: None
        sys.modules["torchvision.extension"] = extension
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("registrations")
        from torchvision.models.video import r2plus1d_18
    return r2plus1d_18


class Trainer:
    """A supervised step: autocast, cross-entropy, SGD with momentum."""

    def __init__(self, precision: str, channels_last: bool):
        torch.manual_seed(0)
        self._autocast = precision != "float32"
        self._net = load_model_code()(num_classes=CLASSES).train()
        self._frames = torch.randn(BATCH, 3, FRAMES, SIZE, SIZE)
        if channels_last:
            self._net = self._net.to(memory_format=torch.channels_last_3d)
            self._frames = self._frames.to(memory_format=torch.channels_last_3d)
        self._labels = torch.arange(BATCH)
        self._optimizer = torch.optim.SGD(self._net.parameters(), lr=0.01, momentum=0.9)
        with FlopCounterMode(display=False) as counter:
            self.step()
        self.flops = counter.get_total_flops()
        self.step()

    def step(self) -> float:
        """Seconds of one step."""
        started = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._autocast):
            logits = self._net(self._frames)
        loss = torch.nn.functional.cross_entropy(logits.float(), self._labels)
        loss.backward()
        self._optimizer.step()
        loss.item()
        return time.perf_counter() - started


def main():
    """Answers requests until the input ends."""
    trainers = {}
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        key = request["precision"], request["channels_last"]
        if key not in trainers:
            trainers[key] = Trainer(*key)
        answer = {"seconds": trainers[key].step(), "flops": trainers[key].flops}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
