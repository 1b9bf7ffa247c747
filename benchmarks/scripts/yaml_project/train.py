"""A project of several files, with a YAML configuration that the command line may override."""

import argparse
import json
import logging
from pathlib import Path

import torch
import yaml
from data import Regression
from model import Network
from torch import nn
from torch.utils.data import DataLoader

log = logging.getLogger("train")


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.yaml"))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--output")
    args = parser.parse_args()
    config = yaml.safe_load(args.config.read_text())
    config["training"] |= {
        name: value
        for name, value in (("batch_size", args.batch_size), ("epochs", args.epochs))
        if value is not None
    }
    config["model"]["hidden"] = args.hidden or config["model"]["hidden"]
    config["output"] = args.output or config["output"]
    return config


def evaluate(model, loader):
    model.eval()
    with torch.inference_mode():
        losses = [nn.functional.mse_loss(model(x), y).item() for x, y in loader]
    return sum(losses) / len(losses)


def main():
    config = parse()
    training, data = config["training"], config["data"]
    output = Path(config["output"])
    output.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    (output / "config.json").write_text(json.dumps(config, indent=2))

    torch.manual_seed(0)
    train_set = Regression(data["samples"], data["features"], seed=0)
    test_set = Regression(data["samples"] // 4, data["features"], seed=1)
    loader = DataLoader(train_set, batch_size=training["batch_size"], shuffle=True)
    test_loader = DataLoader(test_set, batch_size=4 * training["batch_size"])
    model = Network(data["features"], **config["model"])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training["lr"], weight_decay=training["weight_decay"]
    )
    for epoch in range(1, training["epochs"] + 1):
        model.train()
        for x, y in loader:
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        test_loss = evaluate(model, test_loader)
        log.info("epoch %d loss %.4f test %.4f", epoch, loss.item(), test_loss)
        with (output / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"epoch": epoch, "test_loss": test_loss}) + "\n")
        if epoch % training["save_every"] == 0:
            torch.save(model.state_dict(), output / f"model-{epoch}.pt")


if __name__ == "__main__":
    main()
