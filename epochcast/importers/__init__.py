"""Other people's files to records of ours: runs timed elsewhere, and learning curves.

    file ──table──▶ rows ──┬──columns──▶ entries ──▶ runs    Measurement per run
                           └──────────────────────▶ curves   LearningCurve per file

    table      CSV, logs and event files to rows whose cells know where they are written (``rows``);
               JSON by ``documents``
    columns    what each column of a table of runs means, by the tables of names in ``roles``
    entries    a row of such a table, every cell read by its column's role by ``cells``
    runs       which rows are one run, and which runs repeat a configuration
    elapsed    times since the start of a run to times of its epochs
    curves     which columns are the metric, the epoch and the training value; one value an epoch

All or nothing: the first cell that makes no sense is named by line and column. No torch.
"""
