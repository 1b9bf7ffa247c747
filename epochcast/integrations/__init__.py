"""The guard in real training: a plain loop, Lightning, Hugging Face's Trainer, Keras.

    plan.json ─▶ session.py ─▶ Guard (guard/guard.py) ◀─ begin_epoch, step, due, report, end_epoch
                 terminal, log, TensorBoard,                       │
                 signals, store, processes      plain.py, lightning.py, transformers.py, keras.py

Each framework is imported in its own file alone, and only when that is imported.
"""
