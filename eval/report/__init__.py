"""The forms of a report: HTML, Markdown and terminal from one list of tables. Nothing that measures imports it."""
