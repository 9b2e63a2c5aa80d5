"""Read files of many formats as rows of strings; each row comes as a good one, or as a bad one with the reason."""
