"""Storage under faults: what was acknowledged must hold, whatever broke meanwhile.

    python -m torture --write                    all three backends, the report into docs/
    python -m torture --backend sqlite --seed 7  one campaign, the same operations every time
    python -m torture --plant lost-touch         a planted defect, which must be found
    python -m torture --soak 600                 memory, file handles and tasks stay flat

`plan` makes the operations out of a seed, `worker` carries them out in processes that are killed,
`watches` looks on, `weather` breaks what is between them and the store, `journal` keeps what was
begun and what was acknowledged, and `checker` says what may not be so.
"""
