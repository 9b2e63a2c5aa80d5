"""Measure how good an encoder is: tasks with intervals, dev measures during training, reports."""

from sentence_forge.runtime.one_name import refuse_short_name

refuse_short_name(__name__)
