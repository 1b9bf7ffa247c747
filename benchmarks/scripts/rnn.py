"""A tagger of sequences of very different lengths, padded to the longest of their batch."""

import argparse

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

VOCABULARY, TAGS, PAD = 500, 8, -100


class Sequences(Dataset):
    def __init__(self, samples, seed):
        generator = torch.Generator().manual_seed(seed)
        scale = torch.randn(samples, generator=generator)
        self.lengths = (12 * torch.exp(0.6 * scale)).clamp(2, 80).int().tolist()
        self.seed = seed

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + i)
        tokens = torch.randint(1, VOCABULARY, (self.lengths[i],), generator=generator)
        return tokens, tokens % TAGS


def collate(pairs):
    tokens, tags = zip(*pairs, strict=True)
    lengths = torch.tensor([len(t) for t in tokens])
    padded = pad_sequence(tokens, batch_first=True)
    return padded, pad_sequence(tags, batch_first=True, padding_value=PAD), lengths


class Tagger(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, hidden, padding_idx=0)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, TAGS)

    def forward(self, tokens, lengths):
        packed = pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.out(states)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--samples", type=int, default=1500)
    args = parser.parse_args()

    torch.manual_seed(0)
    train = DataLoader(
        Sequences(args.samples, 1), args.batch_size, shuffle=True, collate_fn=collate
    )
    dev = DataLoader(Sequences(args.samples // 5, 2), args.batch_size, collate_fn=collate)
    model = Tagger(args.hidden)
    optimizer = torch.optim.Adam(model.parameters())
    loss_of = nn.CrossEntropyLoss(ignore_index=PAD)
    for epoch in range(args.epochs):
        model.train()
        for tokens, tags, lengths in train:
            loss = loss_of(model(tokens, lengths).flatten(0, 1), tags.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        model.eval()
        right = total = 0
        with torch.no_grad():
            for tokens, tags, lengths in dev:
                known = tags != PAD
                right += (model(tokens, lengths).argmax(-1) == tags)[known].sum().item()
                total += known.sum().item()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, dev accuracy {right / total:.3f}")
        torch.save(model.state_dict(), "tagger.pt")


if __name__ == "__main__":
    main()
