"""How good an encoder is: STS by task with intervals, dev measures while training, a report one can look at."""

from sentence_forge.runtime.one_name import refuse_short_name

refuse_short_name(__name__)
