"""How good an encoder is: STS by task with intervals, dev measures while training, a report one can look at."""
