from tests.evaluating import (  # noqa: F401  fixtures
    build,
    lm_eval_run,
    make_model,
    model,
    tokenizer,
    write_task,
)
