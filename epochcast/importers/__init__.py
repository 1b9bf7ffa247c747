"""Other people's files to records of ours: runs timed elsewhere, and learning curves.

    file ──table──▶ rows ──columns──┬──▶ runs    Measurement per run
                                    └──▶ curves  LearningCurve per file

    table    CSV, JSON, JSON Lines and event files to rows whose cells know where they are written
    columns  what each column of a table of runs means, and what its cells hold
    runs     which rows are one run, and which runs repeat a configuration
    curves   which columns are the metric, the epoch and the training value; one value an epoch

All or nothing: the first cell that makes no sense is named by line and column. No torch.
"""
