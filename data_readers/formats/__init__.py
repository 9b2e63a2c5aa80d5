"""Files of many formats as rows of strings: every row is accounted for, and what was found out is said."""
